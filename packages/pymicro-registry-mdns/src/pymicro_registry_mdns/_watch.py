"""Follows services: asks again and again, and listens to what peers say unasked."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from pymicro.clock import Clock, TimerHandle
from pymicro.errors import BackendUnavailable
from pymicro.registry import ServiceRecord, Snapshot
from pymicro_registry_mdns._known import MAX_KNOWN, Known, united
from pymicro_registry_mdns._network import Network
from pymicro_registry_mdns._options import MdnsOptions
from pymicro_registry_mdns._packets import Answer, Wire
from pymicro_registry_mdns._querier import SETTLE
from pymicro_registry_mdns._timing import wait_until

#: Seconds between questions at first, after a surprise, and while nobody can be asked.
SOON: Final = 1.0

#: How many questions are asked that fast at first. They do not count against nodes that miss them.
FAST_ROUNDS: Final = 3

_SPREAD: Final = 0.1


class Watches:
    """All watches of one registry. Those of one service share what they know and one task.

    Args:
        wire, network, options, clock, logger: as of the registry.
    """

    def __init__(
        self, wire: Wire, network: Network, options: MdnsOptions, clock: Clock, logger: logging.Logger
    ) -> None:
        self._wire, self._network, self._options = wire, network, options
        self._clock, self._logger = clock, logger
        self._followers: dict[str | None, Follower] = {}
        self._users: dict[str | None, int] = {}
        self._listed: set[str] = set()  # followed because all are watched
        self._all_ready = False
        self._subscriptions: set[Subscription] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def subscribe(self, service: str | None) -> Iterator[Subscription]:
        """Snapshots of one service, or of all for None, while the context lasts."""
        self._hold(service)
        view = self._view_of_all if service is None else self._followers[service].view
        subscription = Subscription(service, view)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            subscription.end()
            self._release(service)

    def heard(self, answer: Answer, *, unasked: bool) -> None:
        """Take what a peer says."""
        if listing := self._followers.get(None):
            listing.heard(answer, unasked=unasked)  # first, since it may add followers
        for service, follower in list(self._followers.items()):
            if service is not None:
                follower.heard(answer, unasked=unasked)

    def network_changed(self) -> None:
        """Ask again at once: there are other interfaces."""
        for follower in self._followers.values():
            follower.start_over()

    async def aclose(self) -> None:
        """End all watches and their tasks."""
        for subscription in self._subscriptions:
            subscription.end()
        for follower in self._followers.values():
            follower.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hold(self, service: str | None) -> None:
        self._users[service] = self._users.get(service, 0) + 1
        if service in self._followers:
            return
        follower = Follower(service, self._ask, self._options, self._clock, self._logger, self._changed)
        self._followers[service] = follower
        task = follower.start()
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _release(self, service: str | None) -> None:
        self._users[service] -= 1
        if self._users[service]:
            return
        del self._users[service]
        self._followers.pop(service).stop()
        if service is None:
            self._all_ready = False
            self._follow_exactly(set())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._logger.error("mdns watch failed", exc_info=error)

    def _ask(self, service: str | None) -> None:
        if service is None or self._wire.can_exist(service):
            self._network.ask(self._wire.query(service))

    def _changed(self, service: str | None) -> None:
        if service is None:
            self._follow_exactly(set(self._followers[None].known.items))
        for subscription in self._subscriptions:
            if subscription.service is None or subscription.service == service:
                subscription.wake()

    def _follow_exactly(self, names: set[str]) -> None:
        for name in names - self._listed:
            self._hold(name)
        for name in self._listed - names:
            self._release(name)
        self._listed = names

    def _view_of_all(self) -> Snapshot | None:
        listing = self._followers[None]
        parts = [self._followers[name] for name in self._listed]
        # Only the first snapshot waits: later a service that is new holds up no news of others.
        self._all_ready = self._all_ready or (listing.ready and all(part.ready for part in parts))
        if not self._all_ready:
            return None
        return _snapshot((record for part in parts for record in part.known.items.values()), listing.error)


class Follower:
    """Keeps up what is known of one service, or of the names of all.

    Args:
        service: its name; None for the names of all.
        ask: sends the question for it.
        options, clock, logger: as of the registry.
        changed: told of each change.

    Attributes:
        known: the nodes, or the names.
        ready: whether that is a full state.
        error: why nobody can be asked; None when somebody can.
    """

    def __init__(
        self,
        service: str | None,
        ask: Callable[[str | None], None],
        options: MdnsOptions,
        clock: Clock,
        logger: logging.Logger,
        changed: Callable[[str | None], None],
    ) -> None:
        self._service, self._ask, self._options = service, ask, options
        self._clock, self._logger, self._changed = clock, logger, changed
        self.known = Known(options.expiry)
        self.ready = False
        self.error: BackendUnavailable | None = None
        self._fast = FAST_ROUNDS
        self._due = 0.0
        self._look = asyncio.Event()
        self._settling: TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._warned = False

    def start(self) -> asyncio.Task[None]:
        """Begin to ask; the caller owns the task."""
        self._task = asyncio.create_task(self._run(), name=f"mdns watch {self._service or 'all'}")
        return self._task

    def stop(self) -> None:
        """Cancel the task and the timer."""
        if self._settling is not None:
            self._settling.cancel()
        if self._task is not None:
            self._task.cancel()

    def view(self) -> Snapshot | None:
        """What is known; None before there is a full state."""
        return _snapshot(self.known.items.values(), self.error) if self.ready else None

    def heard(self, answer: Answer, *, unasked: bool) -> None:
        """Take what a peer says."""
        told = answer.about(self._service)
        fresh = told.keys() - self.known.items.keys()
        changed = self.known.saw(told) | self.known.forget(answer.gone)
        if told and not self.ready:
            self._settle()
        if fresh and not unasked:
            self._hurry(SOON)  # announcements may not arrive here: perhaps there is more
        if changed:
            self._changed(self._service)
        if self.known.full and not self._warned:
            self._warned = True
            self._logger.warning("mdns watch of %s is full at %d entries", self._service or "all", MAX_KNOWN)

    def start_over(self) -> None:
        """Ask at once, and fast for a while."""
        self._fast = FAST_ROUNDS
        self._hurry(0.0)

    async def _run(self) -> None:
        while True:
            judged = not self._fast
            self._fast = max(self._fast - 1, 0)
            self._due = self._clock.monotonic() + self._pause()
            try:
                await self._round(judged=judged)
            except BackendUnavailable as error:
                self._fail(error)
            await wait_until(self._clock, lambda: self._due, self._look)

    async def _round(self, *, judged: bool) -> None:
        self.known.begin()
        for _ in range(2):  # the second time for answers that were lost
            self._ask(self._service)
            await self._clock.sleep(self._options.query_timeout / 2)
            if self.known.complete:
                break
        dropped = judged and self.known.judge()
        if dropped:
            self._hurry(SOON)
        if dropped or self.error or not self.ready:
            self.error = None
            self._set_ready()

    def _pause(self) -> float:
        pause = min(SOON, self._options.refresh) if self._fast else self._options.refresh
        return pause * random.uniform(1 - _SPREAD, 1 + _SPREAD)

    def _hurry(self, seconds: float) -> None:
        self._fast = max(self._fast, 1)
        self._due = min(self._due, self._clock.monotonic() + seconds)
        self._look.set()

    def _settle(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
        self._settling = self._clock.call_later(SETTLE, self._set_ready)

    def _set_ready(self) -> None:
        self.ready = True
        self._changed(self._service)

    def _fail(self, error: BackendUnavailable) -> None:
        self._due = min(self._due, self._clock.monotonic() + SOON)
        self.error = self.error or error  # one snapshot for one outage
        self._set_ready()


class Subscription:
    """One watch's iterator: always the newest snapshot, each once.

    Args:
        service: whom it is about; None for all.
        view: gives the newest; None when there is none yet.
    """

    def __init__(self, service: str | None, view: Callable[[], Snapshot | None]) -> None:
        self.service = service
        self._view = view
        self._wake = asyncio.Event()
        self._ended = False
        self._last: Snapshot | None = None

    def wake(self) -> None:
        """Something changed."""
        self._wake.set()

    def end(self) -> None:
        """There will be no more snapshots."""
        self._ended = True
        self._wake.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Snapshot:
        while not self._ended:
            snapshot = self._view()
            if snapshot is not None and snapshot != self._last:
                self._last = snapshot
                return snapshot
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration


def _snapshot(records: Iterable[ServiceRecord], error: BackendUnavailable | None) -> Snapshot:
    return Snapshot(services=united(records), stale=error is not None, error=error)
