"""Following a server's services through whatever happens to it: what registry plugins share for their watches."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from pymicro.clock import Clock, TimerHandle
from pymicro.plugins.toolkit import backoff, detached, end_task, start_task
from pymicro.record import ServiceRecord
from pymicro.registry._contract import Snapshot
from pymicro.registry._watch import SnapshotFeed

__all__ = ["SETTLE", "Follower", "SettlingFeed", "SharedWatches"]

#: Seconds for which services are kept that a server may have lost: those that run are back by then.
SETTLE: Final = 3.0

#: Seconds before the first and before later attempts after failures, at most.
_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 1.0


class Follower(ABC):
    """A task that follows something at a server, from its construction until it is closed.

    Args:
        clock: times the pauses between attempts.
        name: of the task.
    """

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._failures = 0
        self._task: asyncio.Task[None] | None = start_task(self._run(), name)

    async def aclose(self) -> None:
        """End it."""
        await end_task(self._task)
        self._task = None

    @abstractmethod
    async def _follow(self) -> None:
        """Begin with the full state and follow it, until something fails. Call `_works` once the state is known."""

    @abstractmethod
    def _failed(self, error: Exception) -> None:
        """It cannot be followed now. Called after each attempt; `_follow` is called again after a pause."""

    def _works(self) -> None:
        """The next failure is the first one again."""
        self._failures = 0

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except Exception as error:  # whatever it is, watchers are told and it goes on
                self._failures += 1
                self._failed(detached(error))
            await self._clock.sleep(backoff(self._failures or 1, first=_FIRST_RETRY, longest=_LONGEST_RETRY))


class SettlingFeed(SnapshotFeed):
    """A feed that does not believe at once that services are gone after a server may have lost some.

    A server that lost its data, or was away for longer than a TTL, hears of services that run again within moments. For
    so long the last known state is kept where nodes are missing. Also where they go only then: a server that
    stood still looks whose time is over a while after it said who is there.

    Args:
        clock: times it.
        seconds: how long it takes at most.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock, self._seconds = clock, seconds
        self._nodes: frozenset[str] = frozenset()
        self._unsettled = False
        self._timer: TimerHandle | None = None
        self._newest: tuple[ServiceRecord, ...] = ()

    def lose(self, error: Exception) -> None:
        """As `fail`; and what is published next may lack nodes that run. The time begins with that."""
        self._unsettled = self._unsettled or bool(self._nodes)
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """See `SnapshotFeed.fail`."""
        self._stop_timer()
        super().fail(error)

    def publish(self, services: Iterable[ServiceRecord]) -> None:
        """See `SnapshotFeed.publish`. Until it is settled, watchers are told nothing that lacks known nodes."""
        self._newest = tuple(services)
        nodes = frozenset(node.id for service in self._newest for node in service.nodes)
        if self._unsettled:
            if self._timer is None:
                self._timer = self._clock.call_later(self._seconds, self._settle)
            if not nodes >= self._nodes:
                return
        self._nodes = nodes
        super().publish(self._newest)

    def close(self) -> None:
        """See `SnapshotFeed.close`."""
        self._stop_timer()
        super().close()

    def _settle(self) -> None:
        self._timer, self._unsettled = None, False
        self.publish(self._newest)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SharedWatches:
    """Watches by name: what follows a service is shared by all who watch it, and ends with the last of them.

    Args:
        clock: see `SettlingFeed`.
        follow: begins to follow a service, or all of them for None, and tells the feed.
        settle: `seconds` of `SettlingFeed`; None for `SETTLE`.
    """

    def __init__(
        self,
        clock: Clock,
        follow: Callable[[str | None, SettlingFeed], Follower],
        settle: float | None = None,
    ) -> None:
        self._clock, self._follow, self._settle = clock, follow, settle
        self._watches: dict[str | None, tuple[SettlingFeed, Follower]] = {}

    @asynccontextmanager
    async def watch(self, name: str | None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        """Follow `name`. See `Registry.watch`."""
        watch = self._watches.get(name)
        if watch is None:
            feed = SettlingFeed(self._clock, SETTLE if self._settle is None else self._settle)
            watch = self._watches[name] = feed, self._follow(name, feed)
        feed, follower = watch
        try:
            with feed.watch() as snapshots:
                yield snapshots
        finally:
            if not feed.watched and self._watches.get(name) is watch:
                del self._watches[name]
                feed.close()
                await follower.aclose()

    async def aclose(self) -> None:
        """End every watch, and all that follows."""
        watches, self._watches = self._watches, {}
        for feed, follower in watches.values():
            feed.close()
            await follower.aclose()
