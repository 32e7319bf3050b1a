"""pymicro within a process: the transport that tests use, and that needs no network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from peers import About
from peers._pymicro import Caller, Greeter
from pymicro import Client, Service
from pymicro.plugins import Build
from pymicro.registry import MemoryCatalog, MemoryRegistry
from pymicro.transport import MemoryNetwork, MemoryTransport

ABOUT = About(
    says="pymicro in memory: client and server are two services of one process, on one core",
    distributions=("pymicro-core", "msgspec"),
    shapes=("hello", "echo", "stream"),
    one_process=True,
)


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Caller]:
    """See `Peer`."""
    catalog, network = MemoryCatalog(), MemoryNetwork()

    def registry(build: Build) -> MemoryRegistry:
        return MemoryRegistry(None, build, catalog=catalog)

    def transport(build: Build) -> MemoryTransport:
        return MemoryTransport(None, build, network=network)

    server, caller = (
        Service(name, environ={}, registry=registry, transport=transport, broker="memory", drain_delay=0.0)
        for name in ("benchmark", "benchmark.client")
    )
    server.handle(Greeter())
    async with server, caller:
        calls: Client = caller.client
        yield Caller(calls, server.name)
