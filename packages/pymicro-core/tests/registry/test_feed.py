"""`SnapshotFeed`: watches that plugin authors share."""

from __future__ import annotations

import asyncio

import pytest

from pymicro.errors import BackendUnavailable
from pymicro.record import ServiceRecord
from pymicro.registry import Snapshot, SnapshotFeed

ONE, TWO = ServiceRecord("one"), ServiceRecord("two")
ERROR = BackendUnavailable("down")


async def test_every_watcher_begins_with_the_newest() -> None:
    feed = SnapshotFeed()
    feed.publish([ONE])
    feed.publish([TWO])
    with feed.watch() as first, feed.watch() as second:
        assert await anext(first) == await anext(second) == Snapshot(services=(TWO,))


async def test_a_slow_watcher_skips_what_it_missed() -> None:
    feed = SnapshotFeed()
    with feed.watch() as snapshots:
        for name in "abc":
            feed.publish([ServiceRecord(name)])
        assert (await anext(snapshots)).services == (ServiceRecord("c"),)
        waiting = asyncio.ensure_future(anext(snapshots))
        await asyncio.sleep(0)
        assert not waiting.done()
        feed.publish([ONE])
        assert (await waiting).services == (ONE,)


async def test_watchers_wait_for_the_first_state() -> None:
    feed = SnapshotFeed()
    with feed.watch() as snapshots:
        waiting = asyncio.ensure_future(anext(snapshots))
        await asyncio.sleep(0)
        assert not waiting.done()
        feed.publish([])
        assert await waiting == Snapshot()


async def test_the_same_state_again_is_no_news() -> None:
    feed = SnapshotFeed()
    feed.publish([ONE])
    with feed.watch() as snapshots:
        await anext(snapshots)
        feed.publish([ServiceRecord("one")])
        feed.publish([TWO])
        assert (await anext(snapshots)).services == (TWO,)


async def test_a_failure_keeps_the_last_state_and_is_told_once() -> None:
    feed = SnapshotFeed()
    feed.publish([ONE])
    with feed.watch() as snapshots:
        await anext(snapshots)
        feed.fail(ERROR)
        assert await anext(snapshots) == Snapshot(services=(ONE,), stale=True, error=ERROR)
        feed.fail(BackendUnavailable("still down"))
        feed.publish([ONE])
        assert await anext(snapshots) == Snapshot(services=(ONE,))


async def test_a_failure_before_any_state_has_none() -> None:
    feed = SnapshotFeed()
    feed.fail(ERROR)
    with feed.watch() as snapshots:
        assert await anext(snapshots) == Snapshot(stale=True, error=ERROR)


async def test_cancelling_a_wait_loses_nothing() -> None:
    feed = SnapshotFeed()
    with feed.watch() as snapshots:
        waiting = asyncio.ensure_future(anext(snapshots))
        await asyncio.sleep(0)
        feed.publish([ONE])
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await anext(snapshots)).services == (ONE,)


async def test_closing_ends_every_watch() -> None:
    feed = SnapshotFeed()
    feed.publish([ONE])
    with feed.watch() as waiting, feed.watch() as behind:
        await anext(waiting)
        ended = asyncio.ensure_future(anext(waiting, None))
        await asyncio.sleep(0)
        feed.close()
        feed.close()
        assert await ended is None
        assert await anext(behind, None) is None


async def test_a_watch_ends_with_its_block() -> None:
    feed = SnapshotFeed()
    feed.publish([ONE])
    with feed.watch() as snapshots:
        assert feed.watched
        await anext(snapshots)
        waiting = asyncio.ensure_future(anext(snapshots, None))
        await asyncio.sleep(0)
    assert not feed.watched
    assert await waiting is None
