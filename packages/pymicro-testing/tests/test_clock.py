"""A clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from pymicro.clock import Clock
from pymicro_testing import ManualClock, settle


async def sleeps(clock: Clock, seconds: float, log: list[object], name: object) -> None:
    await clock.sleep(seconds)
    log.append(name)


async def test_time_stands_still() -> None:
    clock: Clock = ManualClock(start=1000.0)
    before = clock.time(), clock.monotonic()
    await settle()
    assert (clock.time(), clock.monotonic()) == before == (1000.0, 0.0)


async def test_advancing_moves_both_clocks() -> None:
    clock = ManualClock(start=1000.0)
    await clock.advance(0.5)
    await clock.advance(1)
    assert (clock.time(), clock.monotonic()) == (1001.5, 1.5)


async def test_sleepers_wake_in_the_order_of_their_time() -> None:
    clock, log = ManualClock(), list[object]()
    async with asyncio.TaskGroup() as tasks:
        for seconds in (3.0, 1.0, 2.0, 1.0):
            tasks.create_task(sleeps(clock, seconds, log, seconds))
        await clock.advance(0.999)
        assert log == []
        await clock.advance(1.0)
        assert log == [1.0, 1.0]
        await clock.advance(10.0)
    assert log == [1.0, 1.0, 2.0, 3.0]


async def test_each_sees_the_time_at_which_it_was_due() -> None:
    clock, seen = ManualClock(), list[float]()

    async def ticks() -> None:
        for _ in range(3):
            await clock.sleep(1.5)
            seen.append(clock.monotonic())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ticks())
        await clock.advance(100.0)
    assert seen == [1.5, 3.0, 4.5]
    assert clock.monotonic() == 100.0


async def test_a_woken_task_gets_to_its_next_wait_before_time_goes_on() -> None:
    clock, log = ManualClock(), list[object]()
    asked: asyncio.Queue[float] = asyncio.Queue()
    answered: asyncio.Queue[float] = asyncio.Queue()

    async def server() -> None:
        while True:
            await answered.put(await asked.get())

    async def client() -> None:
        await clock.sleep(1.0)
        for _ in range(5):
            await asked.put(clock.monotonic())
            log.append(await answered.get())

    serving = asyncio.create_task(server())
    calling = asyncio.create_task(client())
    await sleeps_until(clock, 2.0)
    await calling
    serving.cancel()
    assert log == [1.0] * 5


async def sleeps_until(clock: ManualClock, end: float) -> None:
    clock.call_later(1.5, lambda: None)
    await clock.advance(end)


async def test_call_later_calls_with_arguments_and_in_its_context() -> None:
    clock, log = ManualClock(), list[object]()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("then")
    clock.call_later(1.0, lambda *args: log.append((*args, variable.get())), 1, 2)
    variable.set("now")
    await clock.advance(1.0)
    assert log == [(1, 2, "then")]


async def test_a_cancelled_call_is_not_made() -> None:
    clock, log = ManualClock(), list[object]()
    handle = clock.call_later(1.0, log.append, "no")
    clock.call_later(1.0, log.append, "yes")
    assert clock.pending == 2
    handle.cancel()
    handle.cancel()
    assert clock.pending == 1
    await clock.advance(2.0)
    assert log == ["yes"]
    handle.cancel()
    assert clock.pending == 0


async def test_a_cancelled_sleeper_leaves_no_timer() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(10.0))
    await settle()
    assert clock.pending == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.pending == 0


@pytest.mark.parametrize("seconds", [0, -1.0])
async def test_no_time_at_all_only_lets_others_run(seconds: float) -> None:
    clock, log = ManualClock(), list[object]()
    other = asyncio.create_task(sleeps(clock, 0, log, "other"))
    await clock.sleep(seconds)
    await other
    clock.call_later(seconds, log.append, "later")
    await clock.advance(0)
    assert log == ["other", "later"]


async def test_small_steps_add_up() -> None:
    clock, log = ManualClock(), list[object]()
    task = asyncio.create_task(sleeps(clock, 1.0, log, "woken"))
    await settle()
    for _ in range(10):
        await clock.advance(0.1)
    assert log == ["woken"]
    await task


async def test_time_cannot_go_back() -> None:
    with pytest.raises(ValueError, match="go back"):
        await ManualClock().advance(-1)
