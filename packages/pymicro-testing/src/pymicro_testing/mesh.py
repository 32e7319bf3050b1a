"""Several services in one test: no server, no port, no waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar, overload

from pymicro import Client, Message, Service
from pymicro.broker import MemoryBroker, MemoryTopics
from pymicro.clock import Clock
from pymicro.codec import JsonCodec
from pymicro.plugins import Build
from pymicro.registry import MemoryCatalog, MemoryRegistry
from pymicro.transport import MemoryNetwork, MemoryTransport
from pymicro_testing.fakes import fake

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")


class Mesh:
    """Services that find, call and hear each other in memory. Each mesh is a world of its own.

    Args:
        clock: the time of all its services; None for the machine's.

    Attributes:
        catalog: what their registries share; `catalog.available = False` is an outage.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.catalog = MemoryCatalog()
        self._clock = clock
        self._network = MemoryNetwork()
        self._topics = MemoryTopics()
        self._published: dict[str, list[Message]] = {}
        self._services: list[Service] = []

    def service(self, name: str, **keywords: Any) -> Service:
        """A service of this mesh that does not run yet.

        Args:
            name: its name.
            **keywords: as for `Service`. The environment is not read, and stopping does not wait for clients that
                still look in an old registry, unless keywords say otherwise.
        """
        service = Service(name, **(self._defaults() | keywords))
        self._services.append(service)
        return service

    def fake(self, name: str, interface: type[Any], **answers: Any) -> Any:
        """Serve a fake under `name`, as one more service of this mesh; see `pymicro_testing.fake`."""
        stand_in = fake(interface, **answers)
        self.service(name).handle(stand_in, interface=interface)
        return stand_in

    @asynccontextmanager
    async def run(self, *services: Service) -> AsyncIterator[Client]:
        """Run services; yields a client that can call them, and stops them at the end.

        Args:
            *services: which ones, in the order of starting; none: all that were made by this mesh.
        """
        caller = Service("caller", **self._defaults())
        async with AsyncExitStack() as stack:
            for service in (*(services or self._services), caller):
                await stack.enter_async_context(service)
            yield caller.client

    @overload
    def serve(self, handler: T, /) -> AbstractAsyncContextManager[T]: ...

    @overload
    def serve(self, one: T1, two: T2, /) -> AbstractAsyncContextManager[tuple[T1, T2]]: ...

    @overload
    def serve(self, one: Any, two: Any, three: Any, /, *more: Any) -> AbstractAsyncContextManager[tuple[Any, ...]]: ...

    def serve(self, *handlers: Any) -> AbstractAsyncContextManager[Any]:
        """Run one service with these handlers; yields a stub of the handler's class, or a tuple of stubs.

        What stubs send goes through codecs, middleware and transport, as between two processes.
        """
        return self._serve(handlers)

    @asynccontextmanager
    async def _serve(self, handlers: Sequence[Any]) -> AsyncIterator[Any]:
        service = self.service("served")
        for handler in handlers:
            service.handle(handler)
        async with self.run(service) as client:
            stubs = tuple(client.stub(service.name, type(handler)) for handler in handlers)
            yield stubs[0] if len(stubs) == 1 else stubs

    @overload
    def published(self, topic: str) -> list[Message]: ...

    @overload
    def published(self, topic: str, type: type[T]) -> list[T]: ...

    def published(self, topic: str, type: type[T] | None = None) -> Sequence[Message | T]:
        """What was published to a topic by services of this mesh, the earliest first; nobody needs to subscribe.

        Args:
            topic: the topic.
            type: what JSON bodies are read as; None for the messages themselves.
        """
        messages = list(self._published.get(topic, ()))
        if type is None:
            return messages
        decode = JsonCodec().decoder(type)
        return [decode(message.body) for message in messages]

    def _defaults(self) -> dict[str, Any]:
        return {
            "environ": {},
            "clock": self._clock,
            "registry": self._registry,
            "transport": self._transport,
            "broker": self._broker,
            "drain_delay": 0.0,
        }

    def _registry(self, build: Build) -> MemoryRegistry:
        return MemoryRegistry(None, build, catalog=self.catalog)

    def _transport(self, build: Build) -> MemoryTransport:
        return MemoryTransport(None, build, network=self._network)

    def _broker(self, build: Build) -> MemoryBroker:
        return _Recording(build, self._topics, self._published)


class _Recording(MemoryBroker):
    """A memory broker that keeps what was published."""

    def __init__(self, build: Build, topics: MemoryTopics, published: dict[str, list[Message]]) -> None:
        super().__init__(None, build, topics=topics)
        self._kept = published

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        await super().publish(topic, message, key=key, keep=keep, timeout=timeout)
        self._kept.setdefault(topic, []).append(message)
