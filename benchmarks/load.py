"""The load of one cell: calls back to back from a number of tasks."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Literal

import msgspec

from costs import Costs
from peers import Client

#: Seconds of the same load before what is measured: connections, caches and the registry's first answer.
WARM_UP = 0.3


class Scenario(msgspec.Struct, frozen=True):
    """What is asked of a peer.

    Attributes:
        name: as on the command line.
        in_flight: tasks that call back to back.
        key: the figure that peers are compared by.
    """

    name: str
    in_flight: int
    key: Literal["p50", "rate"]


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("hello_c1", in_flight=1, key="p50"),
        Scenario("hello_c64", in_flight=64, key="rate"),
    )
}


class Measured(msgspec.Struct, kw_only=True):
    """One cell's figures.

    Attributes:
        calls: how many were made.
        rate: calls a second.
        p50, p99: seconds that a call took.
        client_cpu, server_cpu: seconds of CPU a call, user and system.
        instructions: a call, both sides, user and kernel; None where they cannot be counted.
        foreign: cores that others had meanwhile; see `Costs`.
    """

    calls: int
    rate: float
    p50: float
    p99: float
    client_cpu: float
    server_cpu: float
    instructions: float | None
    foreign: float | None


class WrongReplyError(Exception):
    """A reply was not what was asked for."""


async def measure(client: Client, scenario: Scenario, seconds: float, server: int) -> Measured:
    """Warm up, then measure for `seconds`.

    Args:
        server: the server's process id.

    Raises:
        WrongReplyError: see there.
    """
    await _run(client, scenario.in_flight, WARM_UP)
    gc.collect()
    with Costs(server) as costs:
        took = await _run(client, scenario.in_flight, seconds)
    calls = len(took)
    took.sort()
    return Measured(
        calls=calls,
        rate=calls / costs.seconds,
        p50=took[calls // 2],
        p99=took[calls * 99 // 100],
        client_cpu=costs.client_cpu / calls,
        server_cpu=costs.server_cpu / calls,
        instructions=None if costs.instructions is None else costs.instructions / calls,
        foreign=costs.foreign,
    )


async def _run(client: Client, tasks: int, seconds: float) -> list[float]:
    """How long each call took."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(_call_until(end, client, took))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # one says as much as 64 of the same
    return took


async def _call_until(end: float, client: Client, took: list[float]) -> None:
    clock = time.perf_counter
    now = clock()
    while now < end:
        began = now
        greeting = await client.hello("John")
        now = clock()
        took.append(now - began)
        if greeting != "Hello John":
            raise WrongReplyError(repr(greeting))
