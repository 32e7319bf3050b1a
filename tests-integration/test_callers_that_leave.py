"""Callers that are killed, and readers that stop reading."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Protocol

import pytest

from pymicro import Service

MIB = 1024 * 1024

#: Far more than buffers on both sides and in the kernel hold, far less than an unbounded sender makes in the time.
BUFFERS = 32 * MIB


class Counter(Protocol):
    async def begun(self) -> None: ...

    async def cancelled(self) -> None: ...

    async def stalled(self) -> int: ...

    async def sent(self, beyond: int) -> int: ...


@pytest.fixture
async def counter(start: Any, caller: Service, name: str) -> Counter:
    await (await start("counter.py")).says("service started")
    return caller.client.stub(name, Counter)


@pytest.mark.parametrize("what", ["hang", "chunks"])
async def test_a_killed_caller_cancels_its_handler(start: Any, counter: Counter, what: str) -> None:
    program = await start("counter_caller.py", what)
    await counter.begun()
    await program.kill()
    async with asyncio.timeout(2):
        await counter.cancelled()


async def test_a_reader_that_stops_makes_the_sender_wait(
    start: Any, counter: Counter, caller: Service, name: str
) -> None:
    program = await start("counter_caller.py", "chunks")
    await counter.begun()
    await counter.sent(16 * MIB)
    program.signal(signal.SIGSTOP)
    flowing = await counter.sent(0)
    before = await memory(caller, name)
    stalled = await counter.stalled()
    assert stalled - flowing < BUFFERS
    assert await memory(caller, name) - before < BUFFERS
    program.signal(signal.SIGCONT)
    assert await counter.sent(stalled) > stalled


async def memory(caller: Service, name: str) -> int:
    """Resident bytes of the node."""
    found: int = (await caller.client.call(name, "Debug.Stats", {}))["memory"]
    return found
