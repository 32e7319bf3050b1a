"""Every asynchronous test runs on both event loops. Brokers share a registry; other subscribers are made up."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pymicro.plugins import Build
from pymicro.record import Node, ServiceRecord
from pymicro.registry import MemoryCatalog, MemoryRegistry
from pymicro_broker_http import HttpBrokerOptions
from pymicro_broker_http._broker import HttpBroker
from pymicro_testing.certificates import Authority


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop"):  # not on every platform
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
def catalog() -> MemoryCatalog:
    """What the registry knows; `available = False` is an outage."""
    return MemoryCatalog()


@pytest.fixture
async def registry(catalog: MemoryCatalog) -> AsyncIterator[MemoryRegistry]:
    """The registry of all brokers of a test."""
    async with MemoryRegistry(catalog=catalog) as registry:
        yield registry


@pytest.fixture
async def open_broker(registry: MemoryRegistry) -> AsyncIterator[Callable[..., Awaitable[HttpBroker]]]:
    """Opens a broker; `options` change the defaults, other keywords its build. All are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_broker(options: Mapping[str, Any] | None = None, **build: Any) -> HttpBroker:
            chosen = HttpBrokerOptions(**{"discovery_time": 0.0, **(options or {})})
            broker = HttpBroker(chosen, Build(**build), registry=registry)
            return await stack.enter_async_context(broker)

        yield open_broker


class Stranger:
    """A subscriber that is no pymicro process: an HTTP server that answers as it is told, or not at all.

    Attributes:
        answer: what it sends for each request; None ends the connection.
        silent: set, it reads and says nothing.
        last: after so many requests on a connection the next one finds it closed; 0: never.
        connections: how many there were.
        got: the requests, head and body.
        node: what is registered.
    """

    def __init__(self, registry: MemoryRegistry) -> None:
        self.answer: bytes | None = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self.silent = asyncio.Event()
        self.last = 0
        self.connections = 0
        self.got: asyncio.Queue[bytes] = asyncio.Queue()
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, topic: str, queue: str = "ff.http.broadcast", *, secure: str = "false") -> None:
        """Listen and register, as Go Micro does."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        metadata = {"broker": "http", "secure": secure, "topic": topic}
        self.node = Node(f"{topic}-{uuid.uuid4()}", f"{host}:{port}", metadata)
        record = ServiceRecord("micro.http.broker", queue, nodes=(self.node,))
        self.registration = await self._registry.register(record, ttl=60)

    async def die(self) -> None:
        """Go without telling the registry."""
        if self._server is not None:
            self._server.close()
        for writer in [*self._writers]:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        requests = 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                requests += 1
                if self.last and requests > self.last:
                    break
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.got.put_nowait(head + await reader.readexactly(length))
                if self.silent.is_set():
                    await reader.read()
                if self.answer is None:
                    break
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the publisher went away
        finally:
            self._writers.discard(writer)
            writer.close()


@pytest.fixture
async def stranger(registry: MemoryRegistry) -> AsyncIterator[Callable[..., Awaitable[Stranger]]]:
    """Starts subscribers of another kind; the arguments are those of `Stranger.start`."""
    strangers: list[Stranger] = []

    async def stranger(*where: str, **how: str) -> Stranger:
        strangers.append(Stranger(registry))
        await strangers[-1].start(*where, **how)
        return strangers[-1]

    yield stranger
    for each in strangers:
        await each.registration.aclose()
        await each.die()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The authority that both sides trust."""
    return Authority(tmp_path, "trusted")


@pytest.fixture
def impostor(tmp_path: Path) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path, "impostor")
