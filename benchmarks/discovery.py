"""Measures how soon a service on the same host is found over mDNS. README.md says what the rows mean."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median

import uvloop

from cells import serving
from peers import load
from pymicro_registry_mdns._registry import MdnsRegistry
from worker import Serve


async def _first_answer(service: str) -> None:
    """A watch's first state that has a node."""
    async with MdnsRegistry() as registry, registry.watch(service) as snapshots:
        async for snapshot in snapshots:
            if snapshot.services:
                return
    raise AssertionError("the watch ended")


async def _lookup(service: str) -> None:
    """A look-up, which waits a little longer than for the first answer: there may be more nodes."""
    async with MdnsRegistry() as registry:
        assert await registry.get_service(service)


async def _first_call(service: str) -> None:
    """The first call of a client that was just opened: find the service, connect, call."""
    async with load("pymicro_http").client(service) as client:
        assert await client.hello("John") == "Hello John"


_ROWS: dict[str, Callable[[str], Awaitable[None]]] = {
    "first answer": _first_answer,
    "look-up": _lookup,
    "first call of a new client": _first_call,
}


async def _measure(repetitions: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {name: [] for name in _ROWS}
    async with serving(Serve(peer="pymicro_http")) as (address, _):
        service = address.split()[0]
        for _ in range(repetitions):
            for name, find in _ROWS.items():
                began = time.perf_counter()
                await find(service)
                took[name].append(time.perf_counter() - began)
    return took


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20, help="how often, each time with nothing known (20)")
    repetitions = parser.parse_args().repetitions
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took = runner.run(_measure(repetitions))
    print(f"mDNS on one host, {repetitions} repetitions\n\n| what | median ms | longest ms |\n|---|--:|--:|")
    for name, seconds in took.items():
        print(f"| {name} | {median(seconds) * 1e3:.3g} | {max(seconds) * 1e3:.3g} |")


if __name__ == "__main__":
    main()
