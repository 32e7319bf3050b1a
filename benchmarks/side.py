"""One process whose weight is taken: as little of the harness in it as can be; `footprint.py` starts it.

side.py serve PEER               a server; prints its address
side.py count PEER ADDRESS N M   a client: N calls, prints `warm`, waits for a line, M calls, prints `done`, waits
side.py connect PEER ADDRESS N   a client: opens N connections, one call on each, and the rest as `count` with M=0
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from contextlib import suppress

from peers import Client, Peer, load

_IN_FLIGHT = 64


def _say(text: str) -> None:
    print(text, flush=True)


async def _serve(peer: Peer) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with suppress(asyncio.CancelledError):
        await peer.serve(_say)


async def _count(peer: Peer, address: str, warm_up: int, calls: int) -> None:
    async with peer.client(address) as client:
        await make_calls(client, warm_up)
        await _pause("warm")
        await make_calls(client, calls)
        await _pause("done")


async def make_calls(client: Client, calls: int) -> None:
    """So many greetings, 64 at a time."""
    numbers = iter(range(calls))

    async def work() -> None:
        for number in numbers:
            name = f"J{number % 1000:03}"
            greeting = await client.hello(name)
            if greeting != f"Hello {name}":
                raise ValueError(greeting)

    async with asyncio.TaskGroup() as group:
        for _ in range(_IN_FLIGHT):
            group.create_task(work())


async def _connect(peer: Peer, address: str, count: int) -> None:
    await _pause("warm")
    async with peer.connections(address, count):
        await _pause("done")


async def _pause(text: str) -> None:
    """Lets the other side look at the processes."""
    gc.collect()
    _say(text)
    await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    """Do as the arguments say."""
    import uvloop

    what, name, *rest = sys.argv[1:]
    peer = load(name)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if what == "serve":
            runner.run(_serve(peer))
        elif what == "count":
            runner.run(_count(peer, rest[0], int(rest[1]), int(rest[2])))
        else:
            runner.run(_connect(peer, rest[0], int(rest[1])))


if __name__ == "__main__":
    main()
