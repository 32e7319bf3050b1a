"""One side of one cell, in a process of its own; `cells.py` starts it with an order in JSON."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

import msgspec
import uvloop

from load import SCENARIOS, measure
from peers import Peer, load


class Serve(msgspec.Struct, tag=True, kw_only=True):
    """Serve until SIGTERM; the address is the one line of output.

    Attributes:
        peer: its name.
        core: to be pinned to; None for no pinning.
    """

    peer: str
    core: int | None


class Call(msgspec.Struct, tag=True, kw_only=True):
    """Load a server; the one line of output is a `Measured` in JSON.

    Attributes:
        peer, core: as in `Serve`.
        scenario: its name.
        seconds: how long to measure.
        address: what the server said.
        server: its process id.
    """

    peer: str
    core: int | None
    scenario: str
    seconds: float
    address: str
    server: int


async def _serve(peer: Peer) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with suppress(asyncio.CancelledError):
        await peer.serve(lambda address: print(address, flush=True))


async def _call(peer: Peer, order: Call) -> None:
    async with peer.client(order.address) as client:
        measured = await measure(client, SCENARIOS[order.scenario], order.seconds, order.server)
    print(msgspec.json.encode(measured).decode())


def main() -> None:
    """Do as the argument says."""
    order = msgspec.json.decode(sys.argv[1], type=Serve | Call)
    if order.core is not None:
        os.sched_setaffinity(0, {order.core})  # before a library starts threads: they inherit it
    peer = load(order.peer)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(peer) if isinstance(order, Serve) else _call(peer, order))


if __name__ == "__main__":
    main()
