"""Watches: they hear of changes at once, and notice who is gone without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pymicro.plugins import Build
from pymicro.registry import Node, ServiceRecord, Snapshot
from pymicro_registry_mdns import MdnsOptions, _known
from pymicro_registry_mdns._known import Departed, Known
from pymicro_registry_mdns._packets import Answer, Wire
from pymicro_registry_mdns._watch import Watches
from pymicro_testing.clock import ManualClock

A, B = ServiceRecord("a"), ServiceRecord("b")


def count(snapshot: Snapshot) -> int:
    return sum(len(record.nodes) for record in snapshot.services)


def node(id: str, name: str = "a") -> ServiceRecord:
    return ServiceRecord(name, nodes=(Node(id, "127.0.0.1:80"),))


class Network:
    """Counts the questions, and answers some."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = lambda: None

    def ask(self, _: bytes) -> None:
        self.asked += 1
        self.answer()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
async def watches(clock: ManualClock, network: Network) -> Any:
    watches = Watches(Wire("micro", "vm"), network, MdnsOptions(), clock, Build().logger)  # type: ignore[arg-type]
    yield watches
    await watches.aclose()


async def test_a_node_is_seen_at_once_and_gone_at_once(
    open_registry: Any, record: Callable[..., ServiceRecord], until: Any
) -> None:
    one, other = await open_registry(), await open_registry(refresh=3600.0)
    async with other.watch("greeter") as snapshots:
        assert (await anext(snapshots)).services == ()
        registration = await one.register(record(), ttl=30)
        assert count(await anext(snapshots)) == 1
        await registration.aclose()
        assert count(await anext(snapshots)) == 0


async def test_all_services_are_watched(open_registry: Any, record: Callable[..., ServiceRecord], until: Any) -> None:
    one, other = await open_registry(), await open_registry(refresh=3600.0)
    first = await one.register(record("first"), ttl=30)
    async with other.watch() as snapshots:
        snapshot = await anext(snapshots)
        assert [service.name for service in snapshot.services] == ["first"]
        await one.register(record("second"), ttl=30)
        await until(snapshots, lambda snapshot: [s.name for s in snapshot.services] == ["first", "second"])
        await first.aclose()
        await until(snapshots, lambda snapshot: [s.name for s in snapshot.services] == ["second"])


async def test_two_watches_share_one_task_and_close_apart(
    open_registry: Any, record: Callable[..., ServiceRecord], until: Any
) -> None:
    def watching() -> int:
        return sum(task.get_name() == "mdns watch greeter" for task in asyncio.all_tasks())

    one, other = await open_registry(), await open_registry()
    async with other.watch("greeter") as staying:
        async with other.watch("greeter") as leaving:
            await anext(staying)
            await anext(leaving)
            assert watching() == 1
        await one.register(record(), ttl=30)
        await until(staying, lambda snapshot: count(snapshot) == 1)
    await asyncio.sleep(0)
    assert watching() == 0


async def test_a_killed_process_is_dropped(
    open_registry: Any, record: Callable[..., ServiceRecord], until: Any, peer: Any
) -> None:
    registry = await open_registry(refresh=0.05, query_timeout=0.1)
    async with peer(record()) as process, registry.watch("greeter") as snapshots:
        await until(snapshots, lambda snapshot: count(snapshot) == 1)
        process.kill()
        await until(snapshots, lambda snapshot: count(snapshot) == 0)


async def test_a_process_that_stops_says_goodbye(
    open_registry: Any, record: Callable[..., ServiceRecord], until: Any, peer: Any
) -> None:
    registry = await open_registry(refresh=3600.0)
    async with registry.watch("greeter") as snapshots:
        async with peer(record()):
            assert len((await registry.get_service("greeter"))[0].nodes) == 1
            await until(snapshots, lambda snapshot: count(snapshot) == 1)
        await until(snapshots, lambda snapshot: count(snapshot) == 0)
    assert await registry.get_service("greeter") == ()


# With time and network in the test's hands


async def test_questions_are_few_and_faster_at_first(clock: ManualClock, network: Network, watches: Watches) -> None:
    network.answer = lambda: watches.heard(Answer({"n": node("n")}), unasked=False)
    with watches.subscribe("a"):
        await clock.advance(4.0)
        assert network.asked == 3
        await clock.advance(600.0)
        assert 54 <= network.asked - 3 <= 67


async def test_a_silent_node_is_dropped_after_three_rounds(
    clock: ManualClock, network: Network, watches: Watches
) -> None:
    with watches.subscribe("a") as snapshots:
        await clock.advance(0.1)
        watches.heard(Answer({"n": node("n")}), unasked=True)
        await clock.advance(0.1)
        assert count(await anext(snapshots)) == 1
        await clock.advance(21.0)
        silent = asyncio.ensure_future(anext(snapshots))
        await clock.advance(0.1)
        assert not silent.done()
        await clock.advance(15.0)
        assert count(await silent) == 0


async def test_the_first_snapshot_waits_for_the_question(
    clock: ManualClock, network: Network, watches: Watches
) -> None:
    with watches.subscribe("a") as snapshots:
        first = asyncio.ensure_future(anext(snapshots))
        await clock.advance(0.2)
        assert not first.done()
        await clock.advance(0.1)
        assert (await first) == Snapshot()
        assert network.asked == 2


async def test_the_first_snapshot_comes_soon_after_the_first_answer(
    clock: ManualClock, network: Network, watches: Watches
) -> None:
    network.answer = lambda: watches.heard(Answer({"n": node("n")}), unasked=False)
    with watches.subscribe("a") as snapshots:
        first = asyncio.ensure_future(anext(snapshots))
        await clock.advance(0.04)
        assert count(await first) == 1


# What is known


def test_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_known, "MAX_KNOWN", 2)
    known = Known(3)
    assert known.saw({"1": A, "2": A, "3": A})
    assert (known.items, known.full) == ({"1": A, "2": A}, True)
    assert known.saw({"1": B})
    assert not known.saw({"4": B})


def test_only_misses_in_a_row_count() -> None:
    known = Known(2)
    known.saw({"1": A, "2": A})
    for heard, dropped in (({"2": A}, False), ({"1": A}, False), ({"1": A}, True)):
        known.begin()
        known.saw(heard)
        assert known.judge() is dropped
    assert known.items == {"1": A}


def test_a_round_is_complete_when_all_who_are_known_answered() -> None:
    known = Known(3)
    known.begin()
    assert not known.complete
    known.saw({"1": A, "2": A})
    known.begin()
    known.saw({"1": A})
    assert not known.complete
    known.saw({"2": A})
    assert known.complete


async def test_late_answers_do_not_bring_back_who_said_goodbye(clock: ManualClock) -> None:
    departed = Departed(clock)
    late = Answer({"1": A, "2": A})
    departed.announced(Answer(gone=("1",)))
    assert departed.without(late).nodes == {"2": A}
    departed.announced(Answer({"1": A}))
    assert departed.without(late) == late
    departed.announced(Answer(gone=("1",)))
    await clock.advance(1.0)
    assert departed.without(late) == late
