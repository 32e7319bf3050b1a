"""What publishes and consumes in `brokers.py`: each module here is one way to do it, with the same promises.

`publish` returns when the broker has the message, and a message is acknowledged after its handler returned. A module
is a `Messenger`. Those that begin with `raw` are a backend's client library and nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, Protocol, cast

#: Takes the body of one message; it is acknowledged when that returns. A message whose `Take` waits holds up no other.
Take = Callable[[bytes], Coroutine[Any, Any, None]]
Publish = Callable[[bytes], Awaitable[object]]
#: A call that answers with what it was given.
Echo = Callable[[bytes], Awaitable[bytes]]

#: Messages that a consumer has in hands at a time; and the queue that consumers share.
PREFETCH: Final = 64
QUEUE: Final = "workers"


class Backend(NamedTuple):
    """One configuration of a server.

    Attributes:
        name: as on the command line.
        says: what it is.
        server: which of `pymicro_testing.servers`.
        raw: the module of its client library.
        keeps: whether messages wait in it. What keeps nothing is consumed while others publish.
        messages: how many are counted, so that it takes about a second.
    """

    name: str
    says: str
    server: str
    raw: str
    keeps: bool
    messages: int


BACKENDS: Final = {
    each.name: each
    for each in (
        Backend("nats", "core NATS", "nats", "raw_nats", False, 20_000),
        Backend("jetstream", "NATS JetStream, on files", "nats", "raw_nats", True, 6000),
        Backend("rabbitmq", "RabbitMQ, quorum queues", "rabbitmq", "raw_rabbitmq", True, 4000),
        Backend("redis_streams", "Redis streams, append-only file", "redis", "raw_redis", True, 8000),
        Backend("redis_pubsub", "Redis publish/subscribe", "redis", "raw_redis", False, 8000),
        Backend("kafka", "Kafka, acks=all", "kafka", "raw_kafka", True, 8000),
    )
}

#: Who is compared, in the order of measuring; `raw` stands for the backend's own.
SYSTEMS: Final = ("raw", "pymicro", "faststream")

#: Who is compared in calls, by backend.
CALLS: Final = {"nats": ("raw", "pymicro", "nats_micro"), "rabbitmq": ("raw", "pymicro")}
#: Calls that are counted.
CALLED: Final = 6000


class Messenger(Protocol):
    """A module of this package. `address` is where the server is, `topic` one that nobody else uses."""

    #: Whose versions are told, by name of the backend; a backend that is not here cannot be had.
    DISTRIBUTIONS: dict[str, Sequence[str]]

    def publisher(self, backend: str, address: str, topic: str) -> AbstractAsyncContextManager[Publish]:
        """Gives what publishes one message, and returns when the broker has it."""

    def consumer(self, backend: str, address: str, topic: str, take: Take) -> AbstractAsyncContextManager[object]:
        """Attached to the queue `QUEUE` inside; leaving settles what was taken.

        The queue exists from then on, and keeps messages if the backend does.
        """


class Calling(Protocol):
    """What a module of `CALLS` has."""

    #: Whose versions are told, by name of the backend.
    CALLING: dict[str, Sequence[str]]

    def server(self, backend: str, address: str, topic: str) -> AbstractAsyncContextManager[str]:
        """Answers calls inside; gives where, in whatever form `caller` takes it."""

    def caller(self, backend: str, address: str, where: str) -> AbstractAsyncContextManager[Echo]:
        """Gives what makes one call."""


class Raw(Messenger, Protocol):
    """A client library; it also prepares the ground for the others."""

    async def prepare(self, backend: str, address: str, topic: str) -> None:
        """Make what the server must have before anybody uses the topic."""

    def recorder(self, backend: str, address: str, topic: str, number: int) -> AbstractAsyncContextManager[Record]:
        """Listens to so many messages, whoever publishes them; for backends that keep nothing."""


class Record(Protocol):
    """What was recorded."""

    async def complete(self) -> None:
        """Wait until all were heard, and listen no more."""

    async def blast(self, messages: int) -> None:
        """Publish so many messages, again and again what was recorded, as fast as the library can."""


def load(backend: Backend, system: str) -> Messenger:
    """The module for one of `SYSTEMS`.

    Raises:
        ImportError: what it needs is not installed.
    """
    name = backend.raw if system == "raw" else system
    return cast("Messenger", importlib.import_module(f"messaging.{name}"))


def calling(backend: Backend, system: str) -> Calling:
    """The same for calls."""
    return cast("Calling", load(backend, system))


def raw(backend: Backend) -> Raw:
    """The client library of a backend."""
    return cast("Raw", load(backend, "raw"))
