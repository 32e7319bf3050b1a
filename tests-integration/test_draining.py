"""Nodes that are stopped or killed while calls are under way."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import pytest

from pymicro import Service, endpoint, errors

IDS = ("a", "b", "c")

#: Calls under way at a time, each for so many seconds.
WORKERS = 12
WORK = 0.005


class Node(Protocol):
    async def work(self, seconds: float) -> str: ...

    @endpoint(idempotent=True)
    async def look(self, seconds: float) -> str: ...


class Load:
    """Calls without a pause.

    Attributes:
        answers: how often each node answered.
        failures: what calls raised.
    """

    def __init__(self, call: Callable[[float], Awaitable[str]]) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[Exception] = []
        self._call = call
        self._done = asyncio.Event()
        self._stopped = False

    async def work(self) -> None:
        while not self._stopped:
            try:
                self.answers[await self._call(WORK)] += 1
            except Exception as error:
                self.failures.append(error)
            self._done.set()

    async def more(self, calls: int) -> None:
        """Wait for so many further calls to end."""
        goal = self.ended + calls
        async with asyncio.timeout(20):
            while self.ended < goal:
                self._done.clear()
                await self._done.wait()

    @property
    def ended(self) -> int:
        return self.answers.total() + len(self.failures)

    def stop(self) -> None:
        self._stopped = True


@asynccontextmanager
async def load(call: Callable[[float], Awaitable[str]]) -> AsyncIterator[Load]:
    """Call all the time; at the end, wait for what is under way: nothing may hang."""
    running = Load(call)
    async with asyncio.timeout(40), asyncio.TaskGroup() as workers:
        for _ in range(WORKERS):
            workers.create_task(running.work())
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
async def nodes(start: Any) -> dict[str, Any]:
    """Three nodes of one service."""
    programs = {id: await start("node.py", f"--server_id={id}", "--drain_delay=0.5s") for id in IDS}
    for program in programs.values():
        await program.says("service started")
    return programs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_node_that_is_told_to_stop_fails_no_call(
    nodes: dict[str, Any], caller: Service, name: str, number: signal.Signals
) -> None:
    async with load(caller.client.stub(name, Node).work) as calls:
        await calls.more(300)
        assert set(calls.answers) == set(IDS)
        nodes["a"].signal(number)
        assert await nodes["a"].ended() == 0
        before = calls.answers["a"]
        await calls.more(300)
    assert calls.failures == []
    assert calls.answers["a"] == before
    assert "Traceback" not in "\n".join(nodes["a"].log)
    await nodes["a"].says("service stopped")


async def test_what_is_in_flight_ends_before_the_node_does(start: Any, caller: Service, name: str) -> None:
    node = await start("node.py", "--server_id=a", "--drain_delay=0")
    address = await node.address()
    answer = asyncio.create_task(caller.client.stub(name, Node).work(1.0))
    await until_in_flight(caller, name, address)
    node.signal(signal.SIGTERM)
    assert await answer == "a"
    assert await node.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("delay", ["0", "60s"], ids=["refusing", "draining"])
async def test_a_second_signal_ends_at_once(
    start: Any, caller: Service, name: str, delay: str, number: signal.Signals
) -> None:
    node = await start("node.py", f"--drain_delay={delay}")
    address = await node.address()
    answer = asyncio.create_task(caller.client.stub(name, Node).work(60.0))
    await until_in_flight(caller, name, address)
    node.signal(number)
    await until_draining(caller, name, address)
    node.signal(number)
    async with asyncio.timeout(5):  # what is in flight would have 20
        assert await node.ended() == 1
    with pytest.raises(errors.Unavailable) as failure:
        await answer
    assert failure.value.executed == "maybe"
    assert "Traceback" not in "\n".join(node.log)


async def test_a_killed_node_fails_no_call_that_may_be_repeated(
    nodes: dict[str, Any], caller: Service, name: str
) -> None:
    async with load(caller.client.stub(name, Node).look) as calls:
        await calls.more(300)
        await nodes["a"].kill()
        before = calls.answers["a"]
        await calls.more(300)
    assert calls.failures == []
    assert calls.answers["a"] == before


async def test_a_killed_node_fails_what_it_had_begun_and_nothing_else(
    nodes: dict[str, Any], caller: Service, name: str
) -> None:
    async with load(caller.client.stub(name, Node).work) as calls:
        await calls.more(300)
        await nodes["a"].kill()
        await calls.more(300)
    assert len(calls.failures) <= WORKERS
    for failure in calls.failures:
        assert isinstance(failure, errors.Unavailable)
        assert failure.executed == "maybe"


async def until_in_flight(caller: Service, name: str, address: str) -> None:
    """Until the node has a call at work beside the question itself."""
    async with asyncio.timeout(10):
        while (await caller.client.call(name, "Debug.Stats", {}, address=address))["in_flight"] < 2:
            pass


async def until_draining(caller: Service, name: str, address: str) -> None:
    """Until the node says so, or takes no connections any more."""
    async with asyncio.timeout(10):
        with suppress(errors.Unavailable):
            while (await caller.client.call(name, "Debug.Health", {}, address=address))["status"] != "draining":
                pass
