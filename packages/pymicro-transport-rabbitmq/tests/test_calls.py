"""Services that call each other through RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pymicro import Service, errors
from pymicro.registry import MemoryCatalog, MemoryRegistry
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import RabbitmqServer

PATIENCE = 20.0


class Peer:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)
        self.given_up = asyncio.Event()

    async def slow(self, body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.1)
        return body

    async def wait(self, body: dict[str, Any]) -> dict[str, Any]:
        self.waiting.release()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        return body

    async def fail(self, body: dict[str, Any]) -> dict[str, Any]:
        raise errors.Conflict("no")

    async def count(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for number in range(body["to"]):
            yield {"number": number}

    async def total(self, items: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
        return {"total": sum([item["number"] async for item in items])}


@asynccontextmanager
async def running(rabbitmq: RabbitmqServer | FaultProxy, **keywords: Any) -> AsyncIterator[tuple[Service, Any, Peer]]:
    """A service and a stub of it in another service."""
    catalog, peer = MemoryCatalog(), Peer()

    def service(name: str) -> Service:
        registry: Callable[..., Any] = lambda build: MemoryRegistry(None, build, catalog=catalog)  # noqa: E731
        settings = {"transport": "rabbitmq", "transport_address": [rabbitmq.address], "broker": "memory"}
        return Service(name, environ={}, registry=registry, **(settings | {"drain_delay": 0} | keywords))

    server, caller = service("peer"), service("caller")
    server.handle(peer)
    async with asyncio.timeout(PATIENCE), server, caller:
        yield server, caller.client.stub("peer", Peer), peer
        peer.gate.set()


async def test_calls_errors_and_streams(rabbitmq_server: RabbitmqServer) -> None:
    async with running(rabbitmq_server) as (server, stub, _):
        assert server.server.node is not None
        assert server.server.node.metadata["rabbitmq_sockets"] == "1"
        assert await stub.slow({"a": 1}) == {"a": 1}
        with pytest.raises(errors.Conflict, match="no"):
            await stub.fail({})
        assert [item["number"] async for item in stub.count({"to": 100})] == [*range(100)]

        async def items() -> AsyncIterator[dict[str, Any]]:
            for number in range(100):
                yield {"number": number}

        assert await stub.total(items()) == {"total": 4950}


async def test_many_calls_are_in_flight_at_once(rabbitmq_server: RabbitmqServer) -> None:
    async with running(rabbitmq_server) as (_, stub, peer):
        calls = [asyncio.create_task(stub.wait({"number": number})) for number in range(500)]
        for _ in calls:
            await peer.waiting.acquire()
        peer.gate.set()
        assert [reply["number"] for reply in await asyncio.gather(*calls)] == [*range(500)]


async def test_a_call_that_is_given_up_ends_its_handler(rabbitmq_server: RabbitmqServer) -> None:
    async with running(rabbitmq_server) as (_, stub, peer):
        call = asyncio.create_task(stub.wait({}))
        await peer.waiting.acquire()
        call.cancel()
        await peer.given_up.wait()


async def test_a_request_over_the_limit_says_which(rabbitmq_server: RabbitmqServer) -> None:
    async with running(rabbitmq_server, max_message_size=10_000) as (_, stub, _):
        with pytest.raises(errors.TooLarge, match="10000"):
            await stub.slow({"a": "x" * 10_000})
        assert await stub.slow({"a": "sound"}) == {"a": "sound"}


async def test_calls_go_on_after_the_server_was_away(rabbitmq_server: RabbitmqServer) -> None:
    async with FaultProxy(rabbitmq_server.address) as proxy, running(proxy) as (_, stub, peer):
        waiting = asyncio.create_task(stub.wait({}))
        await peer.waiting.acquire()
        await proxy.stop()
        with pytest.raises((errors.ConnectionFailed, errors.Error)):
            await waiting
        await peer.given_up.wait()
        await proxy.start()
        began = time.monotonic()
        while True:
            try:
                assert await stub.slow({"a": 1}) == {"a": 1}
                break
            except (errors.ConnectionFailed, errors.Unavailable):
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 5.0
