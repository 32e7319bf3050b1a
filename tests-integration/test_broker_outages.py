"""Every configuration that declares at-least-once, on a real server that has bad days: a ledger of ids, under load."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest

from ledger import Ledger
from pymicro_testing import FaultProxy
from pymicro_testing.servers import NativeServer, RabbitmqServer

#: Kills of the server; `PYMICRO_KILLS=20` is what a release takes.
KILLS = int(os.environ.get("PYMICRO_KILLS", "3"))

#: Seconds that it stands still, which is longer than any time-out.
PAUSE = 20.0

#: Connections that are cut in the middle of what goes over them.
CUTS = 10

#: Seconds after the server's return in which events flow again, and those that a busy machine may add.
RECOVERY = 5.0
GRACE = 10.0

PATIENCE = 60.0


class Configuration(NamedTuple):
    """A broker that declares at-least-once: its server, what that is told, and the broker's options."""

    server: str
    settings: dict[str, str]
    options: dict[str, Any]


CONFIGURATIONS = {
    "redis": Configuration("redis", {"appendfsync": "always"}, {"broker_redis_claim_after": 2}),
    "jetstream": Configuration("nats", {}, {"broker_nats_jetstream": True, "broker_nats_ack_wait": 2}),
    "rabbitmq": Configuration("rabbitmq", {}, {"broker_rabbitmq_durable": True}),
    "kafka": Configuration("kafka", {}, {}),
}

logger = logging.getLogger(__name__)


@pytest.fixture(params=CONFIGURATIONS)
def configuration(request: pytest.FixtureRequest) -> Configuration:
    return CONFIGURATIONS[request.param]


@pytest.fixture
def backend(configuration: Configuration, server: Callable[..., NativeServer]) -> NativeServer:
    """The server of the configuration."""
    return server(configuration.server, settings=configuration.settings)


def ledger(configuration: Configuration, address: str, size: int = 64) -> Ledger:
    return Ledger(size, broker=configuration.server, broker_address=address, **configuration.options)


async def check(ledger: Ledger, title: str) -> None:
    """Nothing that was taken is lost."""
    await ledger.settled(PATIENCE)
    assert not ledger.lost
    assert not ledger.broken
    logger.info(
        "%s: %d taken, %d refused, %d delivered again", title, len(ledger.taken), ledger.refused, ledger.doubled
    )


@pytest.mark.timeout(60 + 60 * KILLS)
async def test_kills(configuration: Configuration, backend: NativeServer) -> None:
    async with ledger(configuration, backend.address) as events:
        slowest = 0.0
        for _ in range(KILLS):
            await events.grows(200, PATIENCE)
            if isinstance(backend, RabbitmqServer):
                await backend.until_written()  # else a new queue is lost, and everything in it
            await backend.kill()
            await backend.start()
            slowest = max(slowest, await events.grows(1, RECOVERY))
        await check(events, f"{backend.name}, {KILLS} kills, slowest recovery {slowest:.2f} s")


@pytest.mark.timeout(240 + PAUSE)
async def test_a_pause(server: Callable[..., NativeServer]) -> None:
    """All at once, since a pause takes its time."""

    async def paused(configuration: Configuration) -> None:
        backend = server(configuration.server, settings=configuration.settings)
        async with ledger(configuration, backend.address) as events:
            await events.grows(20, PATIENCE)
            await backend.pause()
            await asyncio.sleep(PAUSE)
            await backend.resume()
            seconds = await events.grows(1, RECOVERY + GRACE)
            await events.grows(20, PATIENCE)
            await check(events, f"{backend.name}, {PAUSE:g} s of silence, recovery {seconds:.2f} s")

    async with asyncio.TaskGroup() as group:
        for configuration in CONFIGURATIONS.values():
            group.create_task(paused(configuration))


@pytest.fixture
async def proxy(backend: NativeServer) -> AsyncIterator[FaultProxy]:
    """Stands between the broker and its server."""
    async with FaultProxy(backend.address) as proxy, AsyncExitStack() as stack:
        if backend.name == "kafka":  # tells clients where to go
            backend.settings["advertised.listeners"] = f"CLIENTS://{proxy.address}"
            await backend.restart()
            stack.push_async_callback(backend.restart)
            stack.callback(backend.settings.pop, "advertised.listeners")
        yield proxy


@pytest.mark.timeout(240)
async def test_connections_that_break_in_the_middle_of_a_message(
    configuration: Configuration, backend: NativeServer, proxy: FaultProxy
) -> None:
    async with ledger(configuration, proxy.address, 64 * 1024) as events:
        for number in range(CUTS):
            await events.grows(10, PATIENCE)
            proxy.cut(after=100_000 + 10_007 * number, reset=bool(number % 2))
            await events.grows(10, RECOVERY + GRACE)
        await check(events, f"{backend.name}, {CUTS} broken connections")
