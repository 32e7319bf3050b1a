"""pymicro as it comes: HTTP, JSON, a node chosen for each call from a watched cache of the mDNS registry."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymicro import Service

DISTRIBUTIONS = ("pymicro-core", "pymicro-transport-http", "pymicro-registry-mdns", "msgspec", "httptools")


@dataclass
class HelloRequest:
    """As in the greeter example."""

    name: str


@dataclass
class HelloResponse:
    """As in the greeter example."""

    greeting: str


class Greeter:
    """As in the greeter example."""

    async def hello(self, request: HelloRequest) -> HelloResponse:
        """Greet."""
        return HelloResponse(greeting=f"Hello {request.name}")


def _service(name: str, **keywords: Any) -> Service:
    # Chosen by name, so that a package that is missing is an error and not the in-memory default.
    return Service(name, environ={}, registry="mdns", transport="http", **keywords)


async def serve(ready: Callable[[str], None]) -> None:
    """See `Peer`. The address is a name that no other service on the network has."""
    service = _service(f"benchmark-{uuid.uuid4().hex[:12]}", server_address="127.0.0.1:0", drain_delay=0.0)
    service.handle(Greeter())
    async with service:
        ready(service.name)
        await asyncio.Event().wait()


class Client:
    """See `peers.Client`."""

    def __init__(self, greeter: Greeter) -> None:
        self._greeter = greeter

    async def hello(self, name: str) -> str:
        """See `peers.Client`."""
        return (await self._greeter.hello(HelloRequest(name=name))).greeting


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Client]:
    """See `Peer`."""
    service = _service("benchmark.client")
    async with service:
        yield Client(service.client.stub(address, Greeter))
