"""`RegistrySelector`: nodes that fail are left out, probed and brought back."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from pymicro.errors import DialFailed
from pymicro.selector import Outcome

REFUSED = DialFailed("connection refused", "10.0.0.1:1")
FAILURES = [Outcome.UNREACHABLE, Outcome.BROKEN]


@pytest.mark.parametrize("outcome", FAILURES)
async def test_a_node_that_fails_is_left_out_then_probed_then_back(
    mesh: Any, ids: Any, pick_of: Any, outcome: Outcome
) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1.0)
    (await pick_of(selector, "1")).done(outcome, 0.1, REFUSED)
    assert set(await ids(selector)) == {"2"}
    await mesh.clock.advance(0.49)
    assert set(await ids(selector)) == {"2"}
    await mesh.clock.advance(0.51)
    probe = await pick_of(selector, "1")
    assert set(await ids(selector)) == {"2"}, "one call at a time probes"
    probe.done(Outcome.OK, 0.1)
    assert set(await ids(selector)) == {"1", "2"}


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.OVERLOADED, Outcome.UNKNOWN])
async def test_other_outcomes_never_count(mesh: Any, ids: Any, outcome: Outcome) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector()
    for _ in range(200):
        (await selector.pick("greeter")).done(outcome, 0.1)
    assert set(await ids(selector)) == {"1", "2"}


async def test_each_probe_that_fails_doubles_the_time(mesh: Any, ids: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1.0, eject_max=30.0)
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    for longest in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        await mesh.clock.advance(longest / 2 - 0.01)
        assert set(await ids(selector, 50)) == {"2"}
        await mesh.clock.advance(longest / 2 + 0.01)
        (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    await mesh.clock.advance(30.0)
    (await pick_of(selector, "1")).done(Outcome.OK)
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    await mesh.clock.advance(1.0)
    await pick_of(selector, "1")  # it works again since, so it begins with the first time


async def test_a_crash_with_many_calls_in_flight_is_one_failure(mesh: Any, ids: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1.0)
    held = [await pick_of(selector, "1") for _ in range(50)]
    for pick in held[:25]:
        pick.done(Outcome.BROKEN)
    await mesh.clock.advance(1.0)
    (await pick_of(selector, "1")).done(Outcome.OK)
    for pick in held[25:]:
        pick.done(Outcome.BROKEN)  # late news of the same crash
    assert set(await ids(selector)) == {"1", "2"}


async def test_an_answer_to_a_call_from_before_brings_nobody_back(mesh: Any, ids: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector()
    early = await pick_of(selector, "1")
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    early.done(Outcome.OK)
    assert set(await ids(selector)) == {"2"}


@pytest.mark.parametrize("outcome", FAILURES)
async def test_a_single_node_is_never_left_out(mesh: Any, ids: Any, outcome: Outcome) -> None:
    await mesh.add("1")
    selector = await mesh.selector()
    for _ in range(10):
        (await selector.pick("greeter")).done(outcome)
        await mesh.clock.advance(0.3)
    assert await ids(selector, 1) == ["1"]


async def test_when_all_are_out_all_are_used(mesh: Any, ids: Any, pick_of: Any) -> None:
    await mesh.add("1", "2", "3")
    selector = await mesh.selector(eject=1000.0, eject_max=1000.0)
    for id in ("1", "2", "3"):
        (await pick_of(selector, id)).done(Outcome.UNREACHABLE)
    seen = {(await selector.pick("greeter")).node.id for _ in range(100)}
    assert seen == {"1", "2", "3"}
    (await pick_of(selector, "2")).done(Outcome.OK)
    assert set(await ids(selector)) == {"2"}, "the one that answered is the one that is used"


async def test_left_out_nodes_are_used_when_the_others_were_tried(mesh: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector()
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    assert (await selector.pick("greeter", exclude=["2"])).node.id == "1"


async def test_a_probe_whose_end_nobody_tells_is_given_up(mesh: Any, ids: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1.0)
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    await mesh.clock.advance(1.0)
    await pick_of(selector, "1")
    assert set(await ids(selector)) == {"2"}
    await mesh.clock.advance(1.0)
    await pick_of(selector, "1")


async def test_a_probe_that_was_cancelled_proves_nothing(mesh: Any, ids: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1.0)
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    await mesh.clock.advance(1.0)
    (await pick_of(selector, "1")).done(Outcome.UNKNOWN)
    assert set(await ids(selector)) == {"2"}


async def test_a_long_stream_brings_a_node_back_with_its_first_answer(mesh: Any, ids: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1.0)
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    await mesh.clock.advance(1.0)
    stream = await pick_of(selector, "1")
    stream.answered()
    assert set(await ids(selector)) == {"1", "2"}
    stream.done(Outcome.OK)


async def test_an_overloaded_probe_proves_that_the_node_lives(mesh: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1.0)
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    await mesh.clock.advance(1.0)
    (await pick_of(selector, "1")).done(Outcome.OVERLOADED)
    for _ in range(2):
        await pick_of(selector, "1")


async def test_a_node_that_left_the_registry_begins_anew(mesh: Any, ids: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1000.0, eject_max=1000.0)
    late = await pick_of(selector, "1")
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    await mesh.remove("1")
    await mesh.add("1")
    assert set(await ids(selector)) == {"1", "2"}
    late.done(Outcome.BROKEN)
    assert set(await ids(selector)) == {"1", "2"}


async def test_news_of_others_keeps_a_node_out(mesh: Any, ids: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1000.0, eject_max=1000.0)
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    await mesh.add("3")
    assert set(await ids(selector)) == {"2", "3"}


async def test_nodes_that_went_leave_no_timer(mesh: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1000.0, eject_max=1000.0)
    await selector.pick("greeter")
    before = mesh.clock.pending
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    assert mesh.clock.pending == before + 1
    await mesh.remove("1")
    assert mesh.clock.pending == before


async def test_leaving_out_is_one_line_and_coming_back_another(
    mesh: Any, pick_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pymicro")
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1.0)
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE, 0.1, REFUSED)
    for _ in range(3):
        await mesh.clock.advance(10.0)
        (await pick_of(selector, "1")).done(Outcome.UNREACHABLE, 0.1, REFUSED)
    await mesh.clock.advance(10.0)
    (await pick_of(selector, "1")).done(Outcome.OK)
    assert [record.getMessage() for record in caplog.records] == [
        "node left out service=greeter node=1 address=10.0.0.1:1 error='10.0.0.1:1: connection refused'",
        "node back service=greeter node=1 address=10.0.0.1:1 seconds=40.0",
    ]


async def test_many_callers_at_once_send_one_probe(mesh: Any, pick_of: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(eject=1.0, strategy="round_robin")
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE)
    await mesh.clock.advance(1.0)
    picks = await asyncio.gather(*(selector.pick("greeter") for _ in range(50)))
    assert sum(pick.node.id == "1" for pick in picks) == 1
