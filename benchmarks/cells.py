"""One cell: a server and a client in fresh processes, each on a core of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from load import Measured
from machine import places
from peers import load
from programs import nats_server
from scenarios import Scenario
from worker import Call, Serve

_WORKER = Path(__file__).with_name("worker.py")
#: Seconds for a server to listen, for what a client does besides measuring, and for a process to end when told to.
_START, _BESIDES, _STOP = 20.0, 30.0, 5.0


class CellFailedError(Exception):
    """There is no figure for this cell; the process's own output says more."""


async def run_cell(
    peer: str, scenario: Scenario, seconds: float, *, uvloop: bool = True, awake: tuple[int, ...] = ()
) -> Measured:
    """Measure once.

    Args:
        awake: as in `Sides`.

    Raises:
        CellFailedError: a side failed or hung.
    """
    about, cores = load(peer).ABOUT, places(scenario.workers)
    async with AsyncExitStack() as stack:
        environment = dict(os.environ)
        address, server, broker = "", 0, 0
        if "nats-server" in about.programs:
            environment["NATS_URL"], broker = await stack.enter_async_context(nats_server(cores.broker))
        if not about.one_process:
            serve = Serve(peer=peer, cores=cores.server, uvloop=uvloop, workers=scenario.workers)
            address, server = await stack.enter_async_context(serving(serve, environment))
        order = Call(
            peer=peer,
            cores=cores.client,
            uvloop=uvloop,
            scenario=scenario.name,
            seconds=seconds,
            address=address,
            server=server,
            broker=broker,
            awake=awake,
        )
        return await _call(order, environment)


async def _call(order: Call, environment: dict[str, str]) -> Measured:
    process = await _start(order, environment)
    try:
        async with asyncio.timeout(order.seconds + _BESIDES):
            output, _ = await process.communicate()
    except TimeoutError:
        raise CellFailedError("the client hung") from None
    finally:
        await _end(process)
    if process.returncode:
        raise CellFailedError("the client failed")
    return msgspec.json.decode(output, type=Measured)


@asynccontextmanager
async def serving(order: Serve, environment: dict[str, str] | None = None) -> AsyncIterator[tuple[str, int]]:
    """Run a peer's server; gives its address and process id.

    Raises:
        CellFailedError: it did not start.
    """
    process = await _start(order, environment)
    assert process.stdout is not None
    try:
        try:
            async with asyncio.timeout(_START):
                address = (await process.stdout.readline()).decode().strip()
        except TimeoutError:
            raise CellFailedError("the server hung") from None
        if not address:
            await process.wait()
            raise CellFailedError("the server failed")
        yield address, process.pid
    finally:
        await _end(process)


async def _start(order: Serve | Call, environment: dict[str, str] | None) -> Process:
    argument = msgspec.json.encode(order).decode()
    return await asyncio.create_subprocess_exec(sys.executable, str(_WORKER), argument, stdout=PIPE, env=environment)


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
