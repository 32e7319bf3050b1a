"""What is measured: each module here is one peer, a greeter with its two sides.

The sides run in processes of their own, on uvloop. A module is a `Peer`: it has the constant and the two functions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast


class Client(Protocol):
    """What the load calls."""

    async def hello(self, name: str) -> str:
        """The greeting for `name`: `Hello John` for `John`."""


class Peer(Protocol):
    """A module of this package.

    Attributes:
        DISTRIBUTIONS: whose versions are told with the figures.
    """

    DISTRIBUTIONS: tuple[str, ...]

    async def serve(self, ready: Callable[[str], None]) -> None:
        """Serve until cancelled; call `ready` with where, in whatever form `client` takes it."""

    def client(self, address: str) -> AbstractAsyncContextManager[Client]:
        """A client of the server at `address`, with all that an ordinary program has switched on."""


def names() -> list[str]:
    """All peers."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def load(name: str) -> Peer:
    """The peer called `name`.

    Raises:
        ImportError: it is unknown, or needs what is not installed.
    """
    return cast("Peer", import_module(f"peers.{name}"))
