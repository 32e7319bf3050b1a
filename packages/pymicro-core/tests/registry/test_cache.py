"""`RegistryCache`: one watch for each service, look-ups without waiting, the last known state through outages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pymicro.errors import BackendRefused, BackendUnavailable, Closed
from pymicro.record import Node
from pymicro.registry import Entry, RegistryCache
from pymicro_testing import ManualClock, no_leaks, settle

A, B = Node("a", "10.0.0.1:80"), Node("b", "10.0.0.2:80")
DOWN = BackendUnavailable("connection refused", "etcd:2379")


def nodes(entry: Entry | None) -> set[str]:
    assert entry is not None
    return {node.id for record in entry.services for node in record.nodes}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def cache(registry: Any, clock: ManualClock) -> AsyncIterator[RegistryCache]:
    async with RegistryCache(registry, clock=clock, idle=600.0, max_services=3) as cache:
        yield cache


# looking up


async def test_a_lookup_waits_for_the_first_answer_only(registry: Any, cache: RegistryCache) -> None:
    assert cache.peek("greeter") is None
    looking = asyncio.create_task(cache.lookup("greeter"))
    await settle()
    assert not looking.done()
    assert cache.peek("greeter") is None
    registry.say("greeter", A)
    entry = await looking
    assert (nodes(entry), entry.stale, entry.age(0.0)) == ({"a"}, False, 0.0)
    assert cache.peek("greeter") is entry
    assert await cache.lookup("greeter") is entry


async def test_first_lookups_at_once_share_one_watch(registry: Any, cache: RegistryCache) -> None:
    looking = [asyncio.create_task(cache.lookup("greeter")) for _ in range(50)]
    await settle()
    looking[0].cancel()
    registry.say("greeter", A)
    entries = await asyncio.gather(*looking[1:])
    assert len(set(entries)) == 1
    assert registry.begun == ["greeter"]


async def test_a_registry_that_hangs_is_given_up_in_time(
    registry: Any, cache: RegistryCache, clock: ManualClock
) -> None:
    looking = asyncio.create_task(cache.lookup("greeter"))
    await clock.advance(0.99)
    assert not looking.done()
    await clock.advance(0.01)
    entry = await looking
    assert "no answer within 1 s" in str(entry.error)
    # The time is one for all: whoever comes later waits no second time.
    assert await cache.lookup("greeter") is entry
    registry.say("greeter", A)
    await settle()
    assert (nodes(entry), entry.error) == ({"a"}, None)


async def test_an_unknown_service_is_seen_when_it_registers(registry: Any, cache: RegistryCache) -> None:
    registry.say("greeter")
    entry = await cache.lookup("greeter")
    assert nodes(entry) == set()
    registry.say("greeter", A)
    await settle()
    assert nodes(entry) == {"a"}


# outages


async def test_the_last_known_nodes_stay(registry: Any, cache: RegistryCache, clock: ManualClock) -> None:
    registry.say("greeter", A)
    entry = await cache.lookup("greeter")
    registry.feed("greeter").fail(DOWN)
    await clock.advance(35.0)
    assert (nodes(entry), entry.stale, entry.error) == ({"a"}, True, DOWN)
    assert entry.age(clock.monotonic()) == 35.0
    registry.say("greeter", A, B)
    await settle()
    assert (nodes(entry), entry.stale, entry.age(clock.monotonic())) == ({"a", "b"}, False, 0.0)


async def test_a_watch_that_begins_again_in_an_outage_keeps_them(
    registry: Any, cache: RegistryCache, clock: ManualClock
) -> None:
    registry.say("greeter", A)
    entry = await cache.lookup("greeter")
    registry.feed("greeter").close()
    registry._feeds.clear()
    registry.feed("greeter").fail(DOWN)
    await clock.advance(1.0)
    assert registry.begun == ["greeter", "greeter"]
    assert (nodes(entry), entry.error) == ({"a"}, DOWN)


async def test_a_registry_that_refuses_is_asked_again_ever_more_rarely(
    registry: Any, cache: RegistryCache, clock: ManualClock
) -> None:
    registry.failure = BackendRefused("wrong password")
    entry = await cache.lookup("greeter")
    assert entry.error is registry.failure
    await clock.advance(600.0)
    first = len(registry.begun)
    assert 20 <= first <= 60
    registry.failure = None
    registry.say("greeter", A)
    await clock.advance(30.0)
    assert (nodes(entry), entry.error) == ({"a"}, None)


async def test_a_watch_that_always_ends_makes_no_busy_loop(
    registry: Any, cache: RegistryCache, clock: ManualClock
) -> None:
    registry.short = True
    registry.say("greeter", A)
    entry = await cache.lookup("greeter")
    await clock.advance(600.0)
    assert len(registry.begun) <= 60
    assert nodes(entry) == {"a"}


async def test_an_outage_is_one_line_and_its_end_another(
    registry: Any, cache: RegistryCache, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pymicro.registry.cache")
    for name in ("one", "two"):
        registry.say(name, A)
        await cache.lookup(name)
    for name in ("one", "two"):
        registry.feed(name).fail(DOWN)
    await clock.advance(5.0)
    registry.say("one", A)
    await settle()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    registry.say("two", A)
    await settle()
    assert [record.getMessage() for record in caplog.records] == [
        "registry lost registry=scripted service=one error='etcd:2379: connection refused'",
        "registry back registry=scripted seconds=5.0",
    ]


# listeners


async def test_listeners_hear_of_changes_and_of_removed_nodes(registry: Any, cache: RegistryCache) -> None:
    changes: list[set[str]] = []
    removed: list[Node] = []
    cache.on_change(lambda entry: changes.append(nodes(entry)))
    stop = cache.on_removed(removed.append)
    registry.say("greeter", A, B)
    await cache.lookup("greeter")
    assert (changes, removed) == ([{"a", "b"}], [])
    registry.say("greeter", A)
    await settle()
    assert (changes, removed) == ([{"a", "b"}, {"a"}], [B])
    moved = Node("a", "10.0.0.9:80")
    registry.say("greeter", moved)
    await settle()
    assert removed == [B, A]
    stop()
    stop()
    registry.say("greeter")
    await settle()
    assert removed == [B, A]


async def test_an_outage_removes_nothing(registry: Any, cache: RegistryCache) -> None:
    removed: list[Node] = []
    cache.on_removed(removed.append)
    registry.say("greeter", A, B)
    await cache.lookup("greeter")
    registry.feed("greeter").fail(DOWN)
    await settle()
    assert removed == []
    registry.say("greeter", B)
    await settle()
    assert removed == [A]


async def test_a_listener_that_fails_disturbs_nobody(
    registry: Any, cache: RegistryCache, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(entry: Entry) -> None:
        raise RuntimeError("mine")

    changes: list[Entry] = []
    cache.on_change(fails)
    cache.on_change(changes.append)
    registry.say("greeter", A)
    entry = await cache.lookup("greeter")
    assert (changes, entry.error) == ([entry], None)
    assert "registry listener failed" in caplog.text


# bounds


async def test_what_is_used_stays_watched_and_what_is_not_ends(
    registry: Any, cache: RegistryCache, clock: ManualClock
) -> None:
    registry.say("idle", A)
    registry.say("used", A)
    idle = await cache.lookup("idle")
    await cache.lookup("used")
    for _ in range(8):
        await clock.advance(99.0)
        assert cache.peek("used") is not None
    assert not idle.live
    assert cache._entries.keys() == {"used"}
    assert registry.watched == ["used"]


async def test_it_is_not_dropped_before_its_time(registry: Any, cache: RegistryCache, clock: ManualClock) -> None:
    registry.say("greeter", A)
    entry = await cache.lookup("greeter")
    await clock.advance(149.0)
    assert cache.peek("greeter") is entry
    await clock.advance(599.0)
    assert entry.live


async def test_one_that_was_not_used_lately_makes_room(registry: Any, cache: RegistryCache) -> None:
    for name in ("one", "two", "three", "four"):
        registry.say(name, A)
        await cache.lookup(name)
    assert registry.watched == ["two", "three", "four"]
    cache.peek("two")
    registry.say("five", A)
    await cache.lookup("five")
    assert registry.watched == ["two", "four", "five"]


async def test_a_lookup_whose_service_is_pushed_out_ends(registry: Any, cache: RegistryCache) -> None:
    looking = [asyncio.create_task(cache.lookup(name)) for name in ("one", "two", "three", "four")]
    await settle()
    entry = await looking[0]
    assert not entry.live
    assert isinstance(entry.error, BackendUnavailable)
    for name in ("two", "three", "four"):
        registry.say(name, A)
    assert all(nodes(entry) == {"a"} for entry in await asyncio.gather(*looking[1:]))


async def test_listeners_hear_that_a_service_was_dropped(registry: Any, cache: RegistryCache) -> None:
    registry.say("greeter", A)
    entry = await cache.lookup("greeter")
    dropped: list[Entry] = []
    cache.on_change(dropped.append)
    await cache.aclose()
    assert dropped == [entry]
    assert not entry.live


# closing


async def test_closing_ends_watches_and_lookups(registry: Any, clock: ManualClock) -> None:
    async with no_leaks():
        cache = RegistryCache(registry, clock=clock)
        async with cache:
            registry.say("one", A)
            await cache.lookup("one")
            looking = asyncio.create_task(cache.lookup("two"))
            await settle()
            await cache.aclose()
            with pytest.raises(Closed):
                await looking
        assert registry.watched == []
        assert clock.pending == 0
        with pytest.raises(Closed):
            await cache.lookup("one")
        assert cache.peek("one") is None
