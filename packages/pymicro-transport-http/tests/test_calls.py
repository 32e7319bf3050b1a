"""Services that call each other over channels: what the client makes of what the transport tells it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pymicro import Service, context, errors
from pymicro.record import Endpoint, Node, ServiceRecord
from pymicro.registry import MemoryCatalog, MemoryRegistry

HEADER = struct.Struct(">IIIBB")
WHOLE, CREDIT, CLOSE = 0, 5, 6


class Peer:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)

    async def whose(self, body: dict[str, Any]) -> dict[str, Any]:
        """The connection that the call came on."""
        return {"peer": context().peer, "body": body}

    async def wait(self, body: dict[str, Any]) -> dict[str, Any]:
        self.waiting.release()
        await self.gate.wait()
        return body

    async def count(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for number in range(body["to"]):
            yield {"number": number}


class Mesh:
    """Services over HTTP on loopback that know each other."""

    def __init__(self) -> None:
        self.catalog = MemoryCatalog()

    def service(self, name: str, **keywords: Any) -> Service:
        settings = {"transport": "http", "broker": "memory", "server_address": "127.0.0.1:0", "drain_delay": 0}
        registry: Callable[..., Any] = lambda build: MemoryRegistry(None, build, catalog=self.catalog)  # noqa: E731
        return Service(name, environ={}, registry=registry, **(settings | keywords))


@asynccontextmanager
async def running(**keywords: Any) -> AsyncIterator[tuple[Service, Service, Peer]]:
    """A service and one that calls it."""
    mesh, peer = Mesh(), Peer()
    server, caller = mesh.service("peer", **keywords), mesh.service("caller")
    server.handle(peer)
    async with server, caller:
        yield server, caller, peer
        peer.gate.set()


async def test_calls_share_one_connection() -> None:
    async with running() as (server, caller, _):
        assert server.server.node is not None
        assert server.server.node.metadata["channels"] == "1"
        stub = caller.client.stub("peer", Peer)
        replies = await asyncio.gather(*(stub.whose({"number": number}) for number in range(50)))
        assert [reply["body"]["number"] for reply in replies] == [*range(50)]
        assert len({reply["peer"] for reply in replies}) == 1


async def test_streams_share_it_too() -> None:
    async with running() as (_, caller, _):
        stub = caller.client.stub("peer", Peer)
        before = await stub.whose({})
        counted = [[item["number"] async for item in stub.count({"to": 100})] for _ in range(3)]
        assert counted == 3 * [[*range(100)]]
        assert (await stub.whose({}))["peer"] == before["peer"]


async def test_one_side_without_channels_means_a_connection_each() -> None:
    for side in ({"transport_http_channels": False}, {}):
        mesh, peer = Mesh(), Peer()
        server = mesh.service("peer", **side)
        caller = mesh.service("caller", transport_http_channels=bool(side))
        server.handle(peer)
        async with server, caller:
            stub = caller.client.stub("peer", Peer)
            replies = await asyncio.gather(*(stub.whose({}) for _ in range(10)))
            assert len({reply["peer"] for reply in replies}) == 10


async def test_a_deadline_of_one_call_leaves_the_others_alone() -> None:
    async with running() as (_, caller, peer):
        stub = caller.client.stub("peer", Peer)
        waiting = asyncio.create_task(stub.wait({"a": 1}))
        await peer.waiting.acquire()
        with pytest.raises(errors.DeadlineExceeded):
            await caller.client.call("peer", "Peer.Wait", {}, timeout=0.05)
        assert (await stub.whose({}))["body"] == {}
        peer.gate.set()
        assert await waiting == {"a": 1}


class Scripted:
    """A node of bytes, registered like any other, which does with each request what the test says.

    Attributes:
        requests: as they came, on all connections.
        acts: what to do with the next ones: `answer`, `leave` (close the channel, untaken), `take` and close it,
            `refuse` the channel; when there are no more, answer.
    """

    def __init__(self, *acts: str) -> None:
        self.requests = 0
        self.connections = 0
        self._acts = list(acts)
        self._taken: dict[int, int] = {}

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._taken = {}
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: pymicro-channels/1\r\n"
                b"Pymicro-Window: 100000\r\n\r\n"
            )
            while True:
                size, channel, _, kind, _ = HEADER.unpack(await reader.readexactly(HEADER.size))
                await reader.readexactly(size)
                if kind == WHOLE:
                    self.requests += 1
                    writer.write(self._done(channel, self._acts.pop(0) if self._acts else "answer"))
        except asyncio.IncompleteReadError:
            writer.close()

    def _done(self, channel: int, act: str) -> bytes:
        taken = self._taken.setdefault(channel, 0)
        if act == "leave":
            return HEADER.pack(0, channel, taken, CLOSE, 0)
        if act == "refuse":
            return HEADER.pack(0, channel, 0, CLOSE, 1)
        self._taken[channel] += 1
        if act == "take":
            return HEADER.pack(0, channel, taken + 1, CLOSE, 0)
        return HEADER.pack(2, channel, 0, WHOLE, 0) + b"{}"


@asynccontextmanager
async def scripted(*acts: str) -> AsyncIterator[tuple[Scripted, Service]]:
    mesh, node = Mesh(), Scripted(*acts)
    server = await asyncio.start_server(node.hold, "127.0.0.1", 0)
    address = "{}:{}".format(*server.sockets[0].getsockname())
    metadata = {"protocol": "mucp", "transport": "http", "channels": "1"}
    record = ServiceRecord("peer", "1", {}, (Endpoint("Peer.Wait"),), (Node("peer-1", address, metadata),))
    async with server, MemoryRegistry(catalog=mesh.catalog) as registry, mesh.service("caller") as caller:
        await registry.register(record, ttl=60)
        yield node, caller


@pytest.mark.parametrize(
    ("acts", "requests"),
    [
        (["answer"], 1),
        (["leave", "answer"], 2),
        (["refuse", "answer"], 2),
        (["leave", "refuse", "answer"], 3),
    ],
)
async def test_a_call_that_was_not_taken_is_made_again(acts: list[str], requests: int) -> None:
    async with scripted(*acts) as (node, caller):
        assert await caller.client.call("peer", "Peer.Wait", {}) == {}
        assert node.requests == requests


async def test_a_call_on_a_used_channel_that_was_not_taken_is_made_again() -> None:
    async with scripted("answer", "answer", "leave", "answer") as (node, caller):
        for _ in range(3):
            assert await caller.client.call("peer", "Peer.Wait", {}) == {}
        assert node.requests == 4


async def test_a_call_that_was_taken_is_not_made_again() -> None:
    async with scripted("answer", "take") as (node, caller):
        await caller.client.call("peer", "Peer.Wait", {})
        with pytest.raises(errors.Unavailable) as failure:
            await caller.client.call("peer", "Peer.Wait", {})
        assert failure.value.executed == "maybe"
        assert node.requests == 2


async def test_an_idempotent_call_is_made_again_even_so() -> None:
    async with scripted("take", "answer") as (node, caller):
        assert await caller.client.call("peer", "Peer.Wait", {}, idempotent=True) == {}
        assert node.requests == 2
