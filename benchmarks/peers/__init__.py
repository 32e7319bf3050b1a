"""What is measured: each module here is one peer, a greeter with its two sides.

The sides run in processes of their own, on the event loop that was asked for. A module is a `Peer`: it has `ABOUT`, and
those of the functions that `ABOUT` promises. Modules with an underscore are shared by peers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from importlib import import_module
from typing import Literal, NamedTuple, Protocol, cast

Shape = Literal["hello", "echo", "stream", "compute"]


class About(NamedTuple):  # not a msgspec type: footprint.py weighs processes that import this and little else
    """What the harness knows of a peer.

    Attributes:
        says: what it is, in one line.
        distributions: whose versions are told with the figures.
        shapes: what it can do: the methods of `Client` that it has.
        calls: who makes the load. "tasks": tasks of one event loop, over `client`; "threads": a thread for each call
            in flight, over `connect`; "program": a program that makes the load itself, over `command`.
        one_process: whether client and server are one process, on one core; `client` then takes no notice of its
            address, and there is no `serve`.
        programs: what must be there besides Python; see `programs.py`.
        workers: whether it can serve from several processes: it has `run`.
    """

    says: str
    distributions: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ("hello", "echo")
    calls: Literal["tasks", "threads", "program"] = "tasks"
    one_process: bool = False
    programs: tuple[str, ...] = ()
    workers: bool = False


class Client(Protocol):
    """What the load calls; a peer has the methods that are among its shapes."""

    async def hello(self, name: str) -> str:
        """The greeting for `name`: `Hello John` for `John`."""

    async def echo(self, data: bytes) -> bytes:
        """The same bytes, which the server had as bytes."""

    def stream(self, names: AsyncIterator[str]) -> AsyncIterator[str]:
        """The greeting for each name, in order, over one bidirectional stream."""

    async def compute(self, number: int) -> tuple[int, int]:
        """The number, and the id of the process that used 500 µs of CPU before it answered."""


class BlockingClient(Protocol):
    """The same for threads, each of which has one of its own."""

    def hello(self, name: str) -> str:
        """See `Client`."""

    def echo(self, data: bytes) -> bytes:
        """See `Client`."""


class Peer(Protocol):
    """A module of this package."""

    ABOUT: About

    async def serve(self, ready: Callable[[str], None]) -> None:
        """Serve until cancelled; call `ready` with where, in whatever form the other side takes it."""

    def run(self, workers: int, ready: Callable[[str], None]) -> None:
        """Serve from so many processes until SIGTERM, as the main program. `ready` says only where, not when."""

    def client(self, address: str) -> AbstractAsyncContextManager[Client]:
        """A client of the server at `address`, with all that an ordinary program has switched on."""

    def connections(self, address: str, count: int) -> AbstractAsyncContextManager[None]:
        """So many connections to the server, on each of which one call was made; for `footprint.py`."""

    def connect(self, address: str) -> AbstractContextManager[BlockingClient]:
        """A client for one thread."""

    def command(self, address: str, shape: Shape) -> list[str]:
        """The program that makes the load; `load.py` says how it is talked to."""


def names() -> list[str]:
    """All peers."""
    files = os.listdir(os.path.dirname(__file__))
    return sorted(name[:-3] for name in files if name.endswith(".py") and not name.startswith("_"))


def load(name: str) -> Peer:
    """The peer called `name`.

    Raises:
        ImportError: it is unknown, or needs what is not installed.
    """
    return cast("Peer", import_module(f"peers.{name}"))
