"""Watches of full state, conflated: what a registry needs to tell any number of watchers the newest snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager

from pymicro.record import ServiceRecord
from pymicro.registry._contract import Snapshot


class SnapshotFeed:
    """The newest snapshot of something, for any number of watchers of one event loop.

    It holds one snapshot and no task. A watcher that is slow skips what it missed; one that comes late begins with the
    newest. Before the first `publish` or `fail` watchers wait.
    """

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._version = 0
        self._closed = False
        self._watchers = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return self._watchers > 0

    def publish(self, services: Iterable[ServiceRecord]) -> None:
        """This is the state now. Watchers hear of it when it differs from the last, or when that was stale."""
        self._tell(Snapshot(services=tuple(services)))

    def fail(self, error: Exception) -> None:
        """The state cannot be had now. Watchers get the last one, marked stale, once for each outage."""
        last = self._snapshot or Snapshot()
        if not last.stale:
            self._tell(Snapshot(services=last.services, stale=True, error=error))

    def close(self) -> None:
        """End every watch, and those that begin later at once. Idempotent."""
        self._closed = True
        self._wake()

    @contextmanager
    def watch(self) -> Iterator[AsyncIterator[Snapshot]]:
        """Follow the state; the iterator ends when the block or the feed does.

        Cancelling `anext` loses nothing: the next one yields what is newest then.
        """
        watch = _Watch(self)
        self._watchers += 1
        try:
            yield watch
        finally:
            self._watchers -= 1
            watch.ended = True
            self._wake()

    def _tell(self, snapshot: Snapshot) -> None:
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._version += 1
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _next(self, watch: _Watch) -> Snapshot:
        while not (self._closed or watch.ended):
            if self._snapshot is not None and watch.seen != self._version:
                watch.seen = self._version
                return self._snapshot
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        raise StopAsyncIteration


class _Watch:
    __slots__ = ("_feed", "ended", "seen")

    def __init__(self, feed: SnapshotFeed) -> None:
        self._feed = feed
        self.seen = 0
        self.ended = False

    def __aiter__(self) -> _Watch:
        return self

    async def __anext__(self) -> Snapshot:
        return await self._feed._next(self)
