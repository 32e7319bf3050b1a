"""One side of one cell, in a process of its own; `cells.py` starts it with an order in JSON."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

import msgspec

from costs import Sides
from load import Measured, by_program, by_tasks, by_threads
from peers import Peer, load
from scenarios import SCENARIOS, Scenario

#: Seconds in which a service of several processes must answer.
_START = 15.0


class Serve(msgspec.Struct, tag=True, kw_only=True):
    """Serve until SIGTERM; the address is the first line of output.

    Attributes:
        peer: its name.
        cores: that it may use; empty for all.
        uvloop: whether event loops are uvloop's, or asyncio's own.
        workers: as in `Scenario`.
    """

    peer: str
    cores: tuple[int, ...] = ()
    uvloop: bool = True
    workers: int = 0


class Call(msgspec.Struct, tag=True, kw_only=True):
    """Load a server; the one line of output is a `Measured` in JSON.

    Attributes:
        peer, cores, uvloop: as in `Serve`.
        scenario: its name.
        seconds: how long to measure.
        address: what the server said.
        server, broker: their process ids; 0 for none.
        awake: as in `Sides`.
    """

    peer: str
    cores: tuple[int, ...] = ()
    uvloop: bool = True
    scenario: str
    seconds: float
    address: str
    server: int
    broker: int
    awake: tuple[int, ...] = ()


def _ready(address: str) -> None:
    print(address, flush=True)


async def _serve(peer: Peer) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with suppress(asyncio.CancelledError):
        await peer.serve(_ready)


def _call(peer: Peer, order: Call, runner: asyncio.Runner) -> Measured:
    scenario = SCENARIOS[order.scenario]
    sides = Sides(os.getpid(), order.server, order.broker, order.awake)
    if peer.ABOUT.calls == "program":
        return by_program(peer.command(order.address, scenario.shape), scenario, order.seconds, sides)
    if peer.ABOUT.calls == "threads":
        return by_threads(lambda: peer.connect(order.address), scenario, order.seconds, sides)
    return runner.run(_call_by_tasks(peer, order, scenario, sides))


async def _call_by_tasks(peer: Peer, order: Call, scenario: Scenario, sides: Sides) -> Measured:
    if scenario.workers:
        async with asyncio.timeout(_START):
            await _all_answer(peer, order.address, scenario.workers)
    async with peer.client(order.address) as client:
        return await by_tasks(client, scenario, order.seconds, sides)


async def _all_answer(peer: Peer, address: str, workers: int) -> None:
    """Returns when each worker answered: the supervisor says where before they are there.

    What was connected before that would stay with those that were first.
    """
    seen: set[int] = set()
    while len(seen) < workers:
        async with peer.client(address) as client:
            with suppress(Exception):  # nobody is there yet
                seen.add((await client.compute(1))[1])


def _runner(fast: bool) -> asyncio.Runner:
    if not fast:
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def main() -> None:
    """Do as the argument says."""
    order = msgspec.json.decode(sys.argv[1], type=Serve | Call)
    if order.cores:
        os.sched_setaffinity(0, order.cores)  # before a library starts threads: they inherit it
    peer = load(order.peer)
    if isinstance(order, Serve) and order.workers:
        peer.run(order.workers, _ready)
        return
    with _runner(order.uvloop) as runner:
        if isinstance(order, Serve):
            runner.run(_serve(peer))
        else:
            print(msgspec.json.encode(_call(peer, order, runner)).decode())


if __name__ == "__main__":
    main()
