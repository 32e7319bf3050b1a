"""Events between processes over the default broker: found by multicast DNS, shared by a queue, through kills."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from processes import PATIENCE, Program
from pymicro import Service
from pymicro.errors import BackendUnavailable, ConfigurationError


@pytest.fixture
def publish(caller: Service, name: str) -> Callable[[Iterable[int]], Any]:
    """Publishes numbers, one after the other."""

    async def publish(numbers: Iterable[int], timeout: float | None = None) -> None:
        for number in numbers:
            async with asyncio.timeout(PATIENCE):
                await caller.publish(f"{name}.events", f"event {number}.", timeout=timeout)

    return publish


def lines(programs: Iterable[Program], what: str) -> list[int]:
    """The numbers of the events that the programs saw or did."""
    printed = [line for program in programs for line in program.printed if f" {what} " in line]
    return [int(line.rpartition(" ")[2].removesuffix(".")) for line in printed]


async def done(programs: Iterable[Program], what: str, number: int) -> None:
    """Wait until the programs together saw or did so many events."""
    programs = list(programs)

    def enough() -> bool | None:
        return len(lines(programs, what)) >= number or None

    waiting = [asyncio.create_task(program.until(enough)) for program in programs]
    try:
        while not enough():  # a program that ended waits for nothing
            assert waiting, f"all ended, and {what} {len(lines(programs, what))} of {number}"
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            waiting = [task for task in waiting if not task.done() or not task.exception()]
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def started(start: Any, number: int, *flags: str, **variables: str) -> list[Program]:
    programs = [await start("event_subscriber.py", "--drain_delay=0", *flags, **variables) for _ in range(number)]
    for program in programs:
        await program.says("service started")
    return programs


async def test_an_event_reaches_all_subscribers_and_one_of_a_queue(start: Any, publish: Any) -> None:
    programs = await started(start, 2)
    await publish(range(40))
    await done(programs, "saw", 80)
    await done(programs, "did", 40)
    for program in programs:
        assert sorted(lines([program], "saw")) == list(range(40))
    assert sorted(lines(programs, "did")) == list(range(40))
    assert all(lines([program], "did") for program in programs), "both take part"


async def test_a_subscriber_is_found_as_soon_as_it_started(start: Any, publish: Any) -> None:
    await publish([0])  # so that the publisher follows the registry already
    programs: list[Program] = []
    for number in range(1, 4):
        programs += await started(start, 1)
        await publish([number])
        for program in programs:
            await program.says(f"saw event {number}.")


async def test_a_publisher_goes_on_when_a_subscriber_was_killed(start: Any, publish: Any) -> None:
    survivor, victim = await started(start, 2)
    await publish(range(5))
    await done([survivor, victim], "saw", 10)
    await done([survivor, victim], "did", 5)  # what it has and did not do dies with it
    victim.signal(signal.SIGKILL)
    await victim.ended()
    await publish(range(5, 30))
    await done([survivor], "saw", 30)
    await done([survivor, victim], "did", 30)
    assert sorted(lines([survivor], "saw")) == list(range(30))
    assert sorted(lines([survivor, victim], "did")) == list(range(30))
    (successor,) = await started(start, 1)
    await publish([30])
    await successor.says("saw event 30.")
    await survivor.says("saw event 30.")


async def test_a_publisher_is_not_held_up_when_a_subscriber_hangs(start: Any, publish: Any) -> None:
    well, hanging = await started(start, 2)
    await publish(range(5))
    await done([well, hanging], "saw", 10)
    await done([well, hanging], "did", 5)
    hanging.signal(signal.SIGSTOP)
    lost: dict[int, str] = {}
    async with asyncio.timeout(5.0):  # of which one event may wait for one time-out
        for number in range(5, 25):
            try:
                await publish([number], timeout=1.0)
            except BackendUnavailable as error:
                lost[number] = str(error)
    assert len(lost) <= 1, "it was left out then"
    assert all("no answer within" in text for text in lost.values())
    await done([well], "saw", 25)
    await done([well, hanging], "did", 25 - len(lost))
    assert sorted(lines([well, hanging], "did")) == [number for number in range(25) if number not in lost]


async def test_subscribers_that_stop_lose_no_event_of_their_queue(start: Any, publish: Any) -> None:
    slow = {"EVENTS_WORK": "0.005", "MICRO_BROKER_HTTP_MAX_MESSAGES": "8"}  # so the publisher has to wait for them
    programs = await started(start, 2, **slow)
    going_on = True

    async def publish_on() -> int:
        number = 0
        while going_on:
            await publish([number])
            number += 1
        return number

    publishing = asyncio.create_task(publish_on())
    for _ in range(3):
        programs += await started(start, 1, **slow)
        leaving = programs[-3]
        await done([leaving], "did", 20)
        leaving.signal(signal.SIGTERM)
        assert await leaving.ended() == 0
    going_on = False
    number = await publishing
    await done(programs, "did", number)
    assert Counter(lines(programs, "did")) == Counter(range(number))


async def test_worker_processes_subscribe_each(start: Any, publish: Any) -> None:
    (program,) = await started(start, 1, "--server_workers=2")
    await publish(range(20))
    await done([program], "saw", 40)
    await done([program], "did", 20)
    assert Counter(lines([program], "saw")) == Counter([*range(20), *range(20)])
    assert sorted(lines([program], "did")) == list(range(20))
    program.signal(signal.SIGTERM)
    assert await program.ended() == 0


async def test_a_topic_too_long_for_the_registry_is_named(environment: dict[str, str]) -> None:
    async def take(event: str) -> None:
        pass

    fits, long = f"topics.may.have.many.parts.{'x' * 26}", f"but.the.last.{'x' * 27}"
    service = Service("subscriber", environ=environment, drain_delay=0)
    service.subscribe(fits, take)
    async with service:
        assert (await service.health()).status == "ok"
    service.subscribe(long, take)
    with pytest.raises(ConfigurationError, match=rf"topic '{long}' cannot be subscribed to .* DNS allows 63"):
        await service.start()
    service = Service("publisher", environ=environment)
    async with service:
        await service.publish(long, "nobody can be subscribed")
