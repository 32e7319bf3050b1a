"""One cell of `brokers.py`: a system publishes to a backend and consumes from it, in fresh processes."""

from __future__ import annotations

import asyncio
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from broker_side import Order
from cells import CellFailedError
from load import Measured
from machine import places
from messaging import Backend
from pymicro_testing.servers import NativeServer

_SIDE = Path(__file__).with_name("broker_side.py")
#: Seconds for a side to do what it does, and to end when told to.
_PATIENCE, _STOP = 120.0, 5.0


async def run_cell(
    backend: Backend, system: str, server: NativeServer, messages: int, *, uvloop: bool = True
) -> tuple[Measured, Measured]:
    """Publish, then consume; the figures of both.

    Raises:
        CellFailedError: a side failed or hung.
    """
    order = _order("publish", backend, system, server, messages, uvloop)
    async with _side(order) as publisher:
        published = await _said(publisher)
    if backend.keeps:
        async with _side(msgspec.structs.replace(order, do="consume")) as consumer:
            return published, await _said(consumer)
    return published, await _fed(order)


def _order(do: str, backend: Backend, system: str, server: NativeServer, messages: int, uvloop: bool) -> Order:
    return Order(
        do=do,
        system=system,
        backend=backend.name,
        address=server.address,
        topic=f"benchmark.{uuid.uuid4().hex[:16]}",
        messages=messages,
        cores=places().server,
        uvloop=uvloop,
        server=server.pid,
    )


async def run_calls(
    backend: Backend, system: str, server: NativeServer, messages: int, *, uvloop: bool = True
) -> Measured:
    """Make calls through the backend; the broker's CPU is that of the backend.

    Raises:
        CellFailedError: a side failed or hung.
    """
    order = _order("serve", backend, system, server, messages, uvloop)
    async with _side(order) as serving:
        where = (await _line(serving)).decode().strip()
        order = msgspec.structs.replace(order, do="call", topic=where, cores=places().client, feeder=serving.pid)
        async with _side(order) as calling:
            return await _said(calling)


async def _fed(order: Order) -> Measured:
    """Consume while another process publishes."""
    feed = msgspec.structs.replace(order, do="blast", cores=places().client)
    async with _side(feed) as feeder:
        await _ready(feeder)
        async with _side(msgspec.structs.replace(order, do="consume", feeder=feeder.pid)) as consumer:
            await _ready(consumer)
            _go_on(consumer)
            _go_on(feeder)
            return await _said(consumer)


@asynccontextmanager
async def _side(order: Order) -> AsyncIterator[Process]:
    argument = msgspec.json.encode(order).decode()
    process = await asyncio.create_subprocess_exec(sys.executable, str(_SIDE), argument, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(_STOP):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _line(process: Process) -> bytes:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_PATIENCE):
            line = await process.stdout.readline()
            if not line:
                await process.wait()
    except TimeoutError:
        raise CellFailedError("a side hung") from None
    if not line:
        raise CellFailedError("a side failed")
    return line


async def _ready(process: Process) -> None:
    if await _line(process) != b"ready\n":
        raise CellFailedError("a side said something else")


def _go_on(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")


async def _said(process: Process) -> Measured:
    return msgspec.json.decode(await _line(process), type=Measured)
