"""pymicro's greeter, for the peers that differ in how its calls travel."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymicro import Client, Headers, Message, Service
from pymicro.record import Node
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._transport import HttpTransport

HTTP = ("pymicro-core", "pymicro-transport-http", "pymicro-registry-mdns", "msgspec", "httptools")
#: Seconds of CPU that `compute` takes.
_COMPUTES = 500e-6
_BYTES = "application/octet-stream"


@dataclass
class HelloRequest:
    """As in the greeter example."""

    name: str


@dataclass
class HelloResponse:
    """As in the greeter example."""

    greeting: str


@dataclass
class Computed:
    """What was asked, and which process answered."""

    number: int
    process: int


class Greeter:
    """The greeter example, with the other shapes."""

    async def hello(self, request: HelloRequest) -> HelloResponse:
        """Greet."""
        return HelloResponse(greeting=f"Hello {request.name}")

    async def echo(self, data: bytes) -> bytes:
        """Give it back."""
        return data

    async def chat(self, requests: AsyncIterator[HelloRequest]) -> AsyncIterator[HelloResponse]:
        """Greet everybody."""
        async for request in requests:
            yield HelloResponse(greeting=f"Hello {request.name}")

    async def compute(self, number: int) -> Computed:
        """Use the CPU. What other processes have meanwhile does not count, so it takes longer where they do."""
        end = time.thread_time() + _COMPUTES
        while time.thread_time() < end:
            pass
        return Computed(number, os.getpid())


def over_http(name: str, channels: bool, **keywords: Any) -> Service:
    """A service as it comes, but for `channels`."""
    keywords["transport_http_channels"] = channels
    # Chosen by name, so that a package that is missing is an error and not the in-memory default.
    return Service(name, environ={}, registry="mdns", transport="http", **keywords)


def _server(channels: bool, **keywords: Any) -> Service:
    """A greeter on a free port of loopback, under a name that its worker processes share."""
    name = os.environ.setdefault("BENCHMARK_SERVICE", f"benchmark-{uuid.uuid4().hex[:12]}")
    service = over_http(name, channels, server_address="127.0.0.1:0", drain_delay=0.0, **keywords)
    service.handle(Greeter())
    return service


async def serve(channels: bool, ready: Callable[[str], None]) -> None:
    """See `Peer`. The address is the service's name, and where it listens."""
    async with _server(channels) as service:
        assert service.server.node is not None
        ready(f"{service.name} {service.server.node.address}")
        await asyncio.Event().wait()


def run(channels: bool, workers: int, ready: Callable[[str], None]) -> None:
    """See `Peer`."""
    service = _server(channels, log_level="error")
    ready(service.name)
    service.init([])
    service.run(workers=workers)


@asynccontextmanager
async def client(channels: bool, address: str) -> AsyncIterator[Caller]:
    """See `Peer`. The service is found by its name."""
    async with over_http("benchmark.client", channels) as service:
        yield Caller(service.client, address.split()[0])


@asynccontextmanager
async def connections(channels: bool, address: str, count: int) -> AsyncIterator[None]:
    """See `Peer`. Each has a transport of its own: one transport would share its connection."""
    name, where = address.split()
    headers = Headers({"Content-Type": "application/json", "Micro-Service": name, "Micro-Endpoint": "Greeter.Hello"})
    async with AsyncExitStack() as stack:
        for number in range(count):
            transport = await stack.enter_async_context(HttpTransport(HttpOptions(channels=channels)))
            socket = await transport.dial(Node(where, where, dict(transport.node_metadata)), timeout=5.0)
            stack.push_async_callback(socket.aclose)
            await socket.send(Message(headers.extend((("Micro-Id", str(number)),)), b'{"name": "John"}'))
            answer = await socket.recv()
            assert answer.body.rstrip() == b'{"greeting":"Hello John"}', answer
        yield


class Caller:
    """See `peers.Client`. Bytes travel as bytes, everything else as JSON."""

    def __init__(self, client: Client, service: str, address: str | None = None) -> None:
        self._greeter = client.stub(service, Greeter, address=address)
        self._bytes = client.stub(service, Greeter, address=address, content_type=_BYTES)

    async def hello(self, name: str) -> str:
        """See `peers.Client`."""
        return (await self._greeter.hello(HelloRequest(name=name))).greeting

    async def echo(self, data: bytes) -> bytes:
        """See `peers.Client`."""
        return await self._bytes.echo(data)

    async def stream(self, names: AsyncIterator[str]) -> AsyncIterator[str]:
        """See `peers.Client`."""
        async for response in self._greeter.chat(_requests(names)):
            yield response.greeting

    async def compute(self, number: int) -> tuple[int, int]:
        """See `peers.Client`."""
        computed = await self._greeter.compute(number)
        return computed.number, computed.process


async def _requests(names: AsyncIterator[str]) -> AsyncIterator[HelloRequest]:
    async for name in names:
        yield HelloRequest(name=name)
