"""`RegistrySelector`: which nodes are picked, by which strategy, through which filters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from pymicro.errors import Closed, UsageError
from pymicro.record import Node
from pymicro.selector import Candidate, Outcome, Pick, RegistrySelector, endpoint, label, version
from pymicro_testing import no_leaks, settle


def run_without_waiting(step: Coroutine[Any, Any, Pick]) -> Pick:
    """The result of a coroutine that never suspends."""
    with pytest.raises(StopIteration) as end:
        step.send(None)
    return end.value.value  # type: ignore[no-any-return]  # what `return` gave


async def test_a_pick_names_the_node_and_its_version(mesh: Any) -> None:
    await mesh.add("1", version="2.1", zone="a")
    pick = await (await mesh.selector()).pick("greeter")
    assert pick.node == Node("1", "10.0.0.1:1", {"zone": "a"})
    assert pick.service is not None
    assert (pick.service.name, pick.service.version) == ("greeter", "2.1")


async def test_a_known_service_is_picked_without_waiting(mesh: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector()
    await selector.pick("greeter")
    for how in ({}, {"strategy": "least_conn"}, {"exclude": {"1"}}, {"filters": [version("1.0")]}):
        assert run_without_waiting(selector.pick("greeter", **how)).node.id in {"1", "2"}


async def test_nodes_of_all_versions_are_picked(mesh: Any, ids: Any) -> None:
    await mesh.add("1", version="1.0")
    await mesh.add("2", version="2.0")
    assert set(await ids(await mesh.selector())) == {"1", "2"}


async def test_nodes_that_come_get_their_share_and_nodes_that_go_get_nothing(mesh: Any, ids: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector(strategy="round_robin")
    await ids(selector, 10)
    await mesh.add("3", "4")
    assert Counter(await ids(selector, 400)) == {"1": 100, "2": 100, "3": 100, "4": 100}
    await mesh.remove("1", "2")
    assert set(await ids(selector)) == {"3", "4"}


async def test_a_node_may_change_without_losing_its_place(mesh: Any) -> None:
    await mesh.add("1", weight="1")
    selector = await mesh.selector()
    before = await selector.pick("greeter")
    await mesh.registrations["1"].aclose()
    await mesh.add("1", weight="2")
    after = await selector.pick("greeter")
    assert (before.node.metadata, after.node.metadata) == ({"weight": "1"}, {"weight": "2"})


async def test_a_stale_registry_serves_on(mesh: Any, ids: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector()
    await selector.pick("greeter")
    assert selector.age("greeter") == 0.0
    mesh.catalog.available = False
    await mesh.clock.advance(300.0)
    assert set(await ids(selector)) == {"1", "2"}
    assert selector.age("greeter") == 300.0
    assert selector.age("nobody") is None


# strategies


async def test_random_uses_every_node(mesh: Any, ids: Any) -> None:
    await mesh.add("1", "2", "3")
    shares = Counter(await ids(await mesh.selector(), 3000))
    assert all(800 < share < 1200 for share in shares.values())


async def test_round_robin_counts_on_over_calls(mesh: Any, ids: Any) -> None:
    await mesh.add("1", "2", "3")
    selector = await mesh.selector(strategy="round_robin", chance=lambda: 0.0)
    assert await ids(selector, 6) == ["2", "3", "1", "2", "3", "1"]


async def test_round_robin_by_call_counts_for_each_service(mesh: Any, ids: Any) -> None:
    await mesh.add("1", "2")
    await mesh.add("9", name="other")
    selector = await mesh.selector(chance=lambda: 0.0)
    picked = []
    for _ in range(4):
        picked += await ids(selector, 1, strategy="round_robin")
        await selector.pick("other", strategy="round_robin")
    assert picked == ["2", "1", "2", "1"]


async def test_least_conn_picks_the_idlest(mesh: Any) -> None:
    await mesh.add("1", "2", "3")
    selector = await mesh.selector(strategy="least_conn")
    held = [await selector.pick("greeter") for _ in range(6)]
    assert Counter(pick.node.id for pick in held) == {"1": 2, "2": 2, "3": 2}
    idle = held[0].node.id
    held[0].done(Outcome.OK, 0.1)
    held[0].done(Outcome.OK, 0.1)
    assert (await selector.pick("greeter")).node.id == idle


async def test_least_conn_does_not_always_take_the_first_of_equals(mesh: Any, ids: Any) -> None:
    await mesh.add("1", "2", "3")
    assert set(await ids(await mesh.selector(strategy="least_conn"))) == {"1", "2", "3"}


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_every_outcome_ends_the_attempt(mesh: Any, outcome: Outcome) -> None:
    await mesh.add("1")
    selector = await mesh.selector()
    seen: list[int] = []

    def strategy(candidates: Sequence[Candidate], key: str | None) -> Candidate:
        seen.append(candidates[0].in_flight)
        return candidates[0]

    for _ in range(2):
        (await selector.pick("greeter", strategy=strategy)).done(outcome)
    assert seen == [0, 0]


async def test_a_strategy_of_ones_own_sees_candidates_and_the_key(mesh: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector()
    seen: list[tuple[str, str, int, float]] = []

    def strategy(candidates: Sequence[Candidate], key: str | None) -> Candidate:
        chosen = next(candidate for candidate in candidates if candidate.node.id == key)
        seen.append((chosen.node.id, chosen.service.version, chosen.in_flight, chosen.latency))
        return chosen

    first = await selector.pick("greeter", strategy=strategy, key="2")
    second = await selector.pick("greeter", strategy=strategy, key="2")
    first.done(Outcome.OK, 1.0)
    second.done(Outcome.OK, 2.0)
    await selector.pick("greeter", strategy=strategy, key="2")
    assert seen == [("2", "1.0", 0, 0.0), ("2", "1.0", 1, 0.0), ("2", "1.0", 0, pytest.approx(1.2))]


async def test_an_unknown_strategy_is_told(mesh: Any) -> None:
    await mesh.add("1")
    with pytest.raises(UsageError, match="no strategy 'fastest': choose one of random, round_robin, least_conn"):
        await (await mesh.selector()).pick("greeter", strategy="fastest")


# filters


async def test_filters(mesh: Any, ids: Any) -> None:
    await mesh.add("1", version="1.0", endpoint="Greeter.Hello", zone="a")
    await mesh.add("2", version="2.0", endpoint="Greeter.Hello", zone="a")
    await mesh.add("3", version="2.0", zone="b", endpoint="Greeter.Hello")
    await mesh.add("4", version="3.0", endpoint="Greeter.Bye")
    selector = await mesh.selector()
    assert set(await ids(selector, filters=[version("2.0")])) == {"2", "3"}
    assert set(await ids(selector, filters=[endpoint("Greeter.Hello")])) == {"1", "2", "3"}
    assert set(await ids(selector, filters=[label("zone", "a")])) == {"1", "2"}
    assert set(await ids(selector, filters=[version("2.0"), label("zone", "a")])) == {"2"}
    assert set(await ids(selector, filters=[lambda records: records[:1]])) == {"1"}


async def test_excluded_nodes_are_not_picked(mesh: Any, ids: Any) -> None:
    await mesh.add("1", "2", "3")
    assert set(await ids(await mesh.selector(), exclude=["1", "3"])) == {"2"}


# life


async def test_removed_nodes_are_told(mesh: Any) -> None:
    await mesh.add("1", "2")
    selector = await mesh.selector()
    removed: list[str] = []
    selector.on_removed(lambda node: removed.append(node.address))
    await selector.pick("greeter")
    await mesh.remove("2")
    assert removed == ["10.0.0.1:2"]


async def test_a_service_that_is_not_called_is_forgotten_and_found_again(mesh: Any, ids: Any) -> None:
    await mesh.add("1")
    selector = await mesh.selector(idle=60.0)
    await selector.pick("greeter")
    for _ in range(10):
        await mesh.clock.advance(59.0)
        assert await ids(selector, 1) == ["1"]
        assert mesh.registry._feeds.keys() == {"greeter"}
    await mesh.clock.advance(75.0)
    assert not mesh.registry._feeds
    assert await ids(selector, 1) == ["1"]


async def test_outside_its_life_a_selector_refuses(mesh: Any) -> None:
    await mesh.add("1")
    async with no_leaks():
        selector = RegistrySelector(registry=mesh.registry)
        with pytest.raises(Closed):
            await selector.pick("greeter")
        async with selector:
            pick = await selector.pick("greeter")
            failed = await selector.pick("greeter")
            failed.done(Outcome.UNREACHABLE)
        with pytest.raises(Closed):
            await selector.pick("greeter")
        with pytest.raises(Closed):
            selector.on_removed(print)
        assert selector.age("greeter") is None
        pick.done(Outcome.BROKEN)


async def test_two_selectors_share_nothing(mesh: Any, ids: Any) -> None:
    await mesh.add("1", "2")
    one, other = await mesh.selector(), await mesh.selector()
    while (pick := await one.pick("greeter")).node.id != "1":
        pick.done(Outcome.OK)
    pick.done(Outcome.UNREACHABLE)
    assert set(await ids(one)) == {"2"}
    assert set(await ids(other)) == {"1", "2"}


async def test_many_first_picks_at_once_are_one_watch(mesh: Any) -> None:
    await mesh.add("1")
    selector = await mesh.selector()
    picks = [asyncio.create_task(selector.pick("greeter")) for _ in range(20)]
    await settle()
    assert {pick.result().node.id for pick in picks} == {"1"}
    assert mesh.registry._feeds["greeter"]._watchers == 1


def test_a_pick_of_a_given_address_needs_no_selector() -> None:
    pick = Pick(Node("x", "10.0.0.1:80"))
    assert pick.service is None
    pick.answered()
    pick.done(Outcome.BROKEN, 0.1, ConnectionError("gone"))
