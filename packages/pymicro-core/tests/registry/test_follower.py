"""What registry plugins share for their watches: followers, feeds that settle, watches that are shared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pymicro.errors import BackendUnavailable
from pymicro.record import Node, ServiceRecord
from pymicro.registry import Snapshot
from pymicro.registry.follower import SETTLE, Follower, SettlingFeed, SharedWatches
from pymicro_testing.clock import ManualClock, settle

ERROR = BackendUnavailable("down")


def services(*ids: str) -> list[ServiceRecord]:
    return [ServiceRecord("greeter", "1", nodes=tuple(Node(id, "127.0.0.1:9000") for id in ids))] if ids else []


def ids(snapshot: Snapshot) -> str:
    """The nodes' ids, and a question mark for a state that is stale."""
    return "".join(node.id for service in snapshot.services for node in service.nodes) + "?" * snapshot.stale


class Script(Follower):
    """Follows what the test says: a list of records, or an error."""

    def __init__(self, clock: ManualClock, feed: SettlingFeed) -> None:
        super().__init__(clock, "script")
        self._clock_of_test, self._feed = clock, feed
        self.says: asyncio.Queue[list[ServiceRecord] | Exception] = asyncio.Queue()
        self.begun: list[float] = []

    async def _follow(self) -> None:
        self.begun.append(self._clock_of_test.monotonic())
        while True:
            said = await self.says.get()
            if isinstance(said, Exception):
                raise said
            self._works()
            self._feed.publish(said)

    def _failed(self, error: Exception) -> None:
        self._feed.lose(error)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def feed(clock: ManualClock) -> SettlingFeed:
    return SettlingFeed(clock, SETTLE)


@pytest.fixture
async def script(clock: ManualClock, feed: SettlingFeed) -> AsyncIterator[Script]:
    script = Script(clock, feed)
    yield script
    await script.aclose()
    await script.aclose()
    feed.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert clock.pending == 0


async def newest(feed: SettlingFeed) -> str:
    await settle()
    with feed.watch() as snapshots:
        return ids(await anext(snapshots))


class TestFollower:
    async def test_it_goes_on_after_every_error_with_back_off(
        self, script: Script, feed: SettlingFeed, clock: ManualClock
    ) -> None:
        for number in range(20):
            script.says.put_nowait(RuntimeError("ours") if number % 2 else ERROR)
        await clock.advance(30)
        pauses = [after - before for before, after in zip(script.begun, script.begun[1:], strict=False)]
        assert len(pauses) == 20
        assert 0.05 <= pauses[0] <= 0.1 < 0.5 <= min(pauses[5:]) <= max(pauses) <= 1
        assert await newest(feed) == "?"

    async def test_after_a_success_the_next_failure_is_the_first_one(self, script: Script, clock: ManualClock) -> None:
        for _ in range(10):
            script.says.put_nowait(ERROR)
        await clock.advance(15)
        script.says.put_nowait(services("a"))
        script.says.put_nowait(ERROR)
        before = len(script.begun)
        await clock.advance(0.1)
        assert len(script.begun) == before + 1

    async def test_the_errors_that_are_told_hold_no_frames(self, script: Script, feed: SettlingFeed) -> None:
        script.says.put_nowait(ERROR)
        with feed.watch() as snapshots:
            assert (await anext(snapshots)).error is ERROR
        assert ERROR.__traceback__ is None


class TestSettlingFeed:
    async def test_nodes_that_may_have_been_lost_are_kept_until_they_are_back(
        self, feed: SettlingFeed, clock: ManualClock
    ) -> None:
        feed.publish(services("a", "b"))
        feed.lose(ERROR)
        for back in ("", "b", "c"):
            feed.publish(services(*back))
            assert await newest(feed) == "ab?"
            await clock.advance(0.5)
        feed.publish(services("a", "b", "c"))
        assert await newest(feed) == "abc"
        await clock.advance(SETTLE)
        feed.publish(services("c"))
        assert await newest(feed) == "c"

    async def test_nodes_that_do_not_come_back_are_gone_after_a_while(
        self, feed: SettlingFeed, clock: ManualClock
    ) -> None:
        feed.publish(services("a", "b"))
        feed.lose(ERROR)
        feed.publish([])
        await clock.advance(SETTLE - 0.1)
        feed.publish(services("b"))
        assert await newest(feed) == "ab?"
        await clock.advance(0.1)
        assert await newest(feed) == "b"
        feed.publish([])
        assert await newest(feed) == ""

    async def test_nodes_that_are_lost_only_after_the_server_told_of_them_are_kept_too(
        self, feed: SettlingFeed, clock: ManualClock
    ) -> None:
        """It answers first, and looks then whose time is over."""
        feed.publish(services("a", "b"))
        feed.lose(ERROR)
        feed.publish(services("a", "b"))
        assert await newest(feed) == "ab"
        await clock.advance(0.5)
        for back in ("", "b"):
            feed.publish(services(*back))
            assert await newest(feed) == "ab"
        feed.publish(services("a", "b", "c"))
        assert await newest(feed) == "abc"
        feed.publish(services("a", "b"))
        assert await newest(feed) == "abc"
        await clock.advance(SETTLE - 0.5)
        assert await newest(feed) == "ab"
        feed.publish([])
        assert await newest(feed) == ""

    async def test_who_knew_nobody_misses_nobody(self, feed: SettlingFeed) -> None:
        feed.lose(ERROR)
        feed.publish(services("a"))
        feed.publish([])
        assert await newest(feed) == ""

    async def test_the_time_begins_with_the_first_state_after_the_last_failure(
        self, feed: SettlingFeed, clock: ManualClock
    ) -> None:
        feed.publish(services("a"))
        feed.lose(ERROR)
        await clock.advance(10)
        feed.publish([])
        await clock.advance(SETTLE - 0.1)
        feed.fail(ERROR)
        await clock.advance(10)
        assert await newest(feed) == "a?"
        feed.publish([])
        await clock.advance(SETTLE - 0.1)
        assert await newest(feed) == "a?"
        await clock.advance(0.1)
        assert await newest(feed) == ""

    async def test_a_failure_that_loses_nothing_keeps_nothing(self, feed: SettlingFeed) -> None:
        feed.publish(services("a", "b"))
        feed.fail(ERROR)
        assert await newest(feed) == "ab?"
        feed.publish(services("b"))
        assert await newest(feed) == "b"

    async def test_the_first_state_is_told_whatever_was_before(self, feed: SettlingFeed) -> None:
        feed.lose(ERROR)
        assert await newest(feed) == "?"
        feed.publish([])
        assert await newest(feed) == ""

    async def test_a_closed_feed_leaves_no_timer(self, feed: SettlingFeed, clock: ManualClock) -> None:
        feed.publish(services("a"))
        feed.lose(ERROR)
        feed.publish([])
        feed.publish(services("b"))
        assert clock.pending == 1
        feed.close()
        assert clock.pending == 0


class TestSharedWatches:
    @pytest.fixture
    def begun(self) -> list[tuple[str | None, Script]]:
        """What was followed, by name."""
        return []

    @pytest.fixture
    async def watches(self, clock: ManualClock, begun: list[tuple[str | None, Script]]) -> AsyncIterator[SharedWatches]:
        def follow(name: str | None, feed: SettlingFeed) -> Script:
            script = Script(clock, feed)
            script.says.put_nowait(services(name or "all"))
            begun.append((name, script))
            return script

        watches = SharedWatches(clock, follow)
        yield watches
        await watches.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert clock.pending == 0

    async def test_watches_of_one_name_share_a_follower(
        self, watches: SharedWatches, begun: list[tuple[str | None, Script]]
    ) -> None:
        async with watches.watch("a") as one, watches.watch("a") as other, watches.watch(None) as everything:
            assert [ids(await anext(each)) for each in (one, other, everything)] == ["a", "a", "all"]
        assert [name for name, _ in begun] == ["a", None]

    async def test_the_follower_ends_with_the_last_watch(
        self, watches: SharedWatches, begun: list[tuple[str | None, Script]]
    ) -> None:
        async with watches.watch("a") as one:
            async with watches.watch("a"):
                pass
            assert ids(await anext(one)) == "a"
            assert len(asyncio.all_tasks()) == 2
        assert asyncio.all_tasks() == {asyncio.current_task()}
        async with watches.watch("a") as again:
            assert ids(await anext(again)) == "a"
        assert len(begun) == 2

    async def test_it_takes_as_long_to_settle_as_it_is_told(self, clock: ManualClock, feed: SettlingFeed) -> None:
        begun: list[Script] = []

        def follow(name: str | None, feed: SettlingFeed) -> Script:
            begun.append(Script(clock, feed))
            return begun[0]

        watches = SharedWatches(clock, follow, 10.0)
        async with watches.watch("a") as snapshots:
            for said in (services("a"), ERROR, []):
                begun[0].says.put_nowait(said)
                await clock.advance(1.0)
            await clock.advance(8.0)
            assert ids(await anext(snapshots)) == "a?"
            await clock.advance(1.0)
            assert ids(await anext(snapshots)) == ""

    async def test_a_watch_that_ends_while_its_feed_settles_leaves_no_timer(
        self, watches: SharedWatches, begun: list[tuple[str | None, Script]], clock: ManualClock
    ) -> None:
        async with watches.watch("a") as snapshots:
            await anext(snapshots)
            begun[0][1].says.put_nowait(ERROR)
            begun[0][1].says.put_nowait(services("b"))
            await clock.advance(0.2)
            assert ids(await anext(snapshots)) == "a?"
            assert clock.pending == 1
        assert clock.pending == 0

    async def test_closing_ends_every_watch(self, watches: SharedWatches) -> None:
        async with watches.watch("a") as one, watches.watch("b") as other:
            await anext(one)
            waiting = asyncio.ensure_future(anext(one, None))
            await settle()
            await watches.aclose()
            assert await waiting is None
            assert await anext(other, None) is None
