"""A watched cache over any registry: lookups without waiting, and the last known state through outages."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from pymicro._internal.backoff import backoff
from pymicro._internal.logs import log
from pymicro.clock import Clock, SystemClock, TimerHandle
from pymicro.errors import BackendUnavailable
from pymicro.plugins.toolkit import Component
from pymicro.record import Node, ServiceRecord
from pymicro.registry._contract import Registry, Snapshot

T = TypeVar("T")

_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 30.0

#: Unused entries are looked for so many times within the idle time.
_IDLE_PARTS: Final = 4


class Entry:
    """What the cache knows of one service. Only the cache changes it, but for `used`.

    Attributes:
        name: the service's.
        services: its versions with their nodes; the last known ones while the registry is away.
        error: why the registry cannot be asked now; None while its watch is live.
        live: whether the cache still follows the service; an entry that it dropped never changes again.
        used: set it on each use; an entry that nobody uses is dropped.
    """

    __slots__ = (
        "_fault_began",
        "_known",
        "_quiet",
        "_ready",
        "_task",
        "_timer",
        "error",
        "live",
        "name",
        "services",
        "used",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.services: tuple[ServiceRecord, ...] = ()
        self.error: Exception | None = None
        self.live = True
        self.used = True
        self._known = False
        self._fault_began = 0.0
        self._quiet = 0
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._timer: TimerHandle | None = None

    @property
    def stale(self) -> bool:
        """Whether the registry cannot be asked now."""
        return self.error is not None

    def age(self, now: float) -> float:
        """Seconds since the registry last vouched for the data: 0.0 while the watch is live.

        Args:
            now: the cache's clock, `monotonic`.
        """
        return 0.0 if self.error is None else max(0.0, now - self._fault_began)


class RegistryCache(Component):
    """Follows each service that is asked for with one watch, so that asking again costs nothing.

    While the registry is away the last known nodes stay. What the registry says holds at once: an unknown service is
    watched as any other, so a node that registers later is seen. Follows the intent of go-micro
    `registry/cache/cache.go`, with watches in place of its TTL.

    Args:
        registry: whom to ask. It must be open before the cache and closed after it.
        clock: times look-ups, back-off and idleness; None for the machine's.
        logger: one line when the registry fails and one when it is back; None for `pymicro.registry.cache`.
        lookup_timeout: seconds that the first look-up of a service may wait for the registry.
        idle: seconds after which a service that nobody asks for is no longer watched; it may be a quarter more.
        max_services: services watched at most; one that was not used lately makes room.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
        lookup_timeout: float = 1.0,
        idle: float = 600.0,
        max_services: int = 10_000,
    ) -> None:
        self._registry = registry
        self._clock: Clock = clock or SystemClock()
        self._logger = logger or logging.getLogger("pymicro.registry.cache")
        self._lookup_timeout = lookup_timeout
        self._idle = idle
        self._max_services = max_services
        self._entries: dict[str, Entry] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._sweeper: TimerHandle | None = None
        self._changed: list[Callable[[Entry], None]] = []
        self._removed: list[Callable[[Node], None]] = []
        self._faults = 0
        self._down_since: float | None = None

    @property
    def registry_name(self) -> str:
        """Whom the cache asks."""
        return self._registry.name

    def peek(self, name: str) -> Entry | None:
        """What is known of `name`; None before the first look-up was answered."""
        entry = self._entries.get(name)
        if entry is None or not entry._ready.is_set():
            return None
        entry.used = True
        return entry

    async def lookup(self, name: str) -> Entry:
        """What is known of `name`, after asking the registry if need be.

        Waits for the registry's first answer only, and for at most `lookup_timeout`: then the entry is stale and says
        why. Callers that ask at the same time share one watch; cancelling one leaves the others alone.

        Raises:
            Closed: the cache is not open.
        """
        self.require_open()
        entry = self._entries.get(name) or self._follow(name)
        entry.used = True
        await entry._ready.wait()
        self.require_open()
        return entry

    def on_change(self, callback: Callable[[Entry], None]) -> Callable[[], None]:
        """Call `callback(entry)` whenever the entry's services changed or it was dropped.

        Returns:
            A function that ends this.
        """
        return _listen(self._changed, callback)

    def on_removed(self, callback: Callable[[Node], None]) -> Callable[[], None]:
        """Call `callback(node)` when the registry says that a node, or its address, is gone.

        Returns:
            A function that ends this.
        """
        return _listen(self._removed, callback)

    async def _open(self) -> None:
        self._sweep()

    async def _close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for entry in list(self._entries.values()):
            self._drop(entry)
        if self._ending:
            await asyncio.wait(self._ending)

    # watching

    def _follow(self, name: str) -> Entry:
        if len(self._entries) >= self._max_services:
            self._make_room()
        entry = self._entries[name] = Entry(name)
        entry._timer = self._clock.call_later(self._lookup_timeout, self._late, entry)
        # The watch outlives the call that asked for it, so it gets nothing of that call's context.
        entry._task = asyncio.get_running_loop().create_task(
            self._watch(entry), name=f"watch service {name}", context=contextvars.Context()
        )
        return entry

    async def _watch(self, entry: Entry) -> None:
        failures = 0
        while True:
            error: Exception = BackendUnavailable("the watch ended")
            began = self._clock.monotonic()
            try:
                async with self._registry.watch(entry.name) as snapshots:
                    async for snapshot in snapshots:
                        self._apply(entry, snapshot)
            except Exception as caught:
                error = caught
            # Watches that begin well and end soon must not make a busy loop.
            held = self._clock.monotonic() - began >= _LONGEST_RETRY
            failures = 1 if held else failures + 1
            self._fail(entry, error)
            await self._clock.sleep(backoff(failures, first=_FIRST_RETRY, longest=_LONGEST_RETRY))

    def _apply(self, entry: Entry, snapshot: Snapshot) -> None:
        before = entry.services
        if not snapshot.stale:
            entry._known, entry.services = True, snapshot.services
            self._recover(entry)
        else:
            # A watch that began during the outage knows nothing: what was known before it is better.
            if snapshot.services or not entry._known:
                entry.services = snapshot.services
            self._fail(entry, snapshot.error or BackendUnavailable("no reason given"))
        if entry.services != before:
            self._tell(self._changed, entry)
        if not snapshot.stale:
            for node in _gone(before, entry.services):
                self._tell(self._removed, node)

    def _late(self, entry: Entry) -> None:
        if not entry._ready.is_set():
            self._fail(entry, BackendUnavailable(f"no answer within {self._lookup_timeout:g} s"))

    def _fail(self, entry: Entry, error: Exception) -> None:
        if entry.error is None:
            self._faults += 1
            entry._fault_began = self._clock.monotonic()
        entry.error = error
        entry._ready.set()
        if self._down_since is None:
            self._down_since = self._clock.monotonic()
            name, registry = entry.name, self._registry.name
            log(self._logger, logging.WARNING, "registry lost", registry=registry, service=name, error=str(error))

    def _recover(self, entry: Entry) -> None:
        if entry.error is not None:
            self._faults -= 1
            entry.error = None
        entry._ready.set()
        if self._down_since is not None and not self._faults:
            seconds, self._down_since = self._clock.monotonic() - self._down_since, None
            log(self._logger, logging.INFO, "registry back", registry=self._registry.name, seconds=round(seconds, 3))

    def _tell(self, callbacks: list[Callable[[T], None]], about: T) -> None:
        for callback in list(callbacks):
            try:
                callback(about)
            except Exception as error:
                log(self._logger, logging.ERROR, "registry listener failed", exc_info=error, error=repr(error))

    # bounds

    def _sweep(self) -> None:
        """Drop what nobody used for long enough, and come back."""
        for entry in list(self._entries.values()):
            entry._quiet = 0 if entry.used else entry._quiet + 1
            entry.used = False
            if entry._quiet >= _IDLE_PARTS:
                self._drop(entry)
        self._sweeper = self._clock.call_later(self._idle / _IDLE_PARTS, self._sweep)

    def _make_room(self) -> None:
        """Drop the first entry that was not used since it was last looked at; those that were go to the end."""
        while True:
            entry = next(iter(self._entries.values()))
            if not entry.used:
                break
            entry.used = False
            self._entries[entry.name] = self._entries.pop(entry.name)
        self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.name]
        entry.live = False
        if entry.error is not None:
            self._faults -= 1
        elif not entry._ready.is_set():
            entry.error = BackendUnavailable("too many services are looked up at once")
            entry._fault_began = self._clock.monotonic()
        entry._ready.set()
        if entry._timer is not None:
            entry._timer.cancel()
        if entry._task is not None:
            entry._task.cancel()
            self._ending.add(entry._task)
            entry._task.add_done_callback(self._ending.discard)
        self._tell(self._changed, entry)


def _listen(callbacks: list[Callable[[T], None]], callback: Callable[[T], None]) -> Callable[[], None]:
    callbacks.append(callback)

    def stop() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return stop


def _gone(before: tuple[ServiceRecord, ...], after: tuple[ServiceRecord, ...]) -> list[Node]:
    places = {(node.id, node.address) for record in after for node in record.nodes}
    return [node for record in before for node in record.nodes if (node.id, node.address) not in places]
