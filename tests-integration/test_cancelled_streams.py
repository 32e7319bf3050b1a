"""Ten thousand streams over HTTP that either side ends at any moment: nothing of them may be left."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from pymicro import Service, call_options, errors
from pymicro_testing import no_leaks

STREAMS = 10_000
WARM_UP = 1_000
AT_A_TIME = 20
MIB = 1024 * 1024


class Numbers:
    """Endless streams, but for a handler that fails after some items."""

    async def count(self, fails_after: int) -> AsyncIterator[int]:
        for number in range(1_000_000):
            if number == fails_after:
                raise errors.Conflict("enough")
            yield number

    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    async def double(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            if number == 20:
                raise errors.Conflict("enough")
            yield 2 * number


async def endless() -> AsyncIterator[int]:
    for number in range(1_000_000):
        yield number
        await asyncio.sleep(0)


class Chaos:
    """Runs streams and ends them: by cancelling the caller, leaving the loop, a deadline, or an error of a side.

    Attributes:
        ends: how often streams ended in which way.
    """

    def __init__(self, numbers: Numbers, seed: int) -> None:
        self.ends: Counter[str] = Counter()
        self._numbers = numbers
        self._random = random.Random(seed)

    async def run(self, streams: int) -> None:
        """So many streams, some at a time."""
        left = iter(range(streams))

        async def one_after_another() -> None:
            for _ in left:
                await self._one()

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_A_TIME):
                group.create_task(one_after_another())

    async def _one(self) -> None:
        chance = self._random
        task = asyncio.create_task(self._stream())
        if chance.random() < 0.5:
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        self.ends[type(outcome).__name__] += 1

    async def _stream(self) -> None:
        chance = self._random
        with call_options(timeout=chance.choice([0.002, 10.0])):
            shape = chance.randrange(3)
            if shape == 0:
                await self._numbers.total(self._failing())
            elif shape == 1:
                await self._some(self._numbers.double(endless()))
            else:
                await self._some(self._numbers.count(chance.choice([0, 3, 30, -1])))

    async def _some(self, items: AsyncIterator[int]) -> None:
        """Leave the loop after some items."""
        enough = self._random.randrange(30)
        async for item in items:
            if item >= enough:
                break

    async def _failing(self) -> AsyncIterator[int]:
        """A source of requests that fails."""
        enough = self._random.randrange(30)
        async for number in endless():
            if number == enough:
                raise errors.Forbidden("no more")
            yield number


@pytest.mark.timeout(180)
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_streams_that_end_at_any_moment_leave_nothing(
    environment: dict[str, str],
    name: str,
    loop: Callable[[], asyncio.AbstractEventLoop],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(storm(name, {**environment, "MICRO_REGISTRY": "memory", "MICRO_DRAIN_DELAY": "0"}))
    assert caplog.messages == []


async def storm(name: str, environment: dict[str, str]) -> None:
    server, client = Service(name, environ=environment), Service("caller", environ=environment)
    server.handle(Numbers())
    async with no_leaks(), server, client:
        assert server.server.node is not None
        address = server.server.node.address
        chaos = Chaos(client.client.stub(name, Numbers, address=address), seed=7)
        await chaos.run(WARM_UP)
        before = await memory(client, name, address)
        await chaos.run(STREAMS)
        assert await memory(client, name, address) - before < 5 * MIB
    assert set(chaos.ends) == {"NoneType", "CancelledError", "Conflict", "DeadlineExceeded", "Forbidden"}


async def memory(client: Service, name: str, address: str) -> int:
    """Resident bytes of this process, once no stream is left, without what the allocator keeps in reserve."""
    async with asyncio.timeout(20):
        while (await client.client.call(name, "Debug.Stats", {}, address=address))["streams"]:
            pass
    gc.collect()
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "malloc_trim"):  # glibc; its reserve grows with fragmentation
        allocator.malloc_trim(0)
    found: int = (await client.client.call(name, "Debug.Stats", {}, address=address))["memory"]
    return found
