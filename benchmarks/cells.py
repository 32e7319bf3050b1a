"""One cell: a server and a client in fresh processes, each on a core of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from load import Measured
from worker import Call, Serve

_WORKER = Path(__file__).with_name("worker.py")
#: Seconds for a server to listen, for what a client does besides measuring, and for a process to end when told to.
_START, _BESIDES, _STOP = 20.0, 20.0, 5.0


class CellFailedError(Exception):
    """There is no figure for this cell; the process's own output says more."""


def cores() -> tuple[int, int] | tuple[None, None]:
    """A core for the server and one for the client; none where that cannot be had."""
    if not hasattr(os, "sched_setaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


async def run_cell(peer: str, scenario: str, seconds: float) -> Measured:
    """Measure once.

    Raises:
        CellFailedError: a side failed or hung.
    """
    server_core, client_core = cores()
    async with serving(peer, server_core) as (address, pid):
        order = Call(peer=peer, core=client_core, scenario=scenario, seconds=seconds, address=address, server=pid)
        process = await _start(order)
        try:
            async with asyncio.timeout(seconds + _BESIDES):
                output, _ = await process.communicate()
        except TimeoutError:
            raise CellFailedError("the client hung") from None
        finally:
            await _end(process)
        if process.returncode:
            raise CellFailedError("the client failed")
        return msgspec.json.decode(output, type=Measured)


@asynccontextmanager
async def serving(peer: str, core: int | None = None) -> AsyncIterator[tuple[str, int]]:
    """Run the peer's server; gives its address and process id.

    Raises:
        CellFailedError: it did not start.
    """
    process = await _start(Serve(peer=peer, core=core))
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START):
            address = (await process.stdout.readline()).decode().strip()
            if not address:
                await process.wait()
                raise CellFailedError("the server failed")
        yield address, process.pid
    except TimeoutError:
        raise CellFailedError("the server hung") from None
    finally:
        await _end(process)


async def _start(order: Serve | Call) -> Process:
    argument = msgspec.json.encode(order).decode()
    return await asyncio.create_subprocess_exec(sys.executable, str(_WORKER), argument, stdout=PIPE)


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
