"""What is watched: the full state by asking, changes by listening, and asking again for those that were killed."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from pymicro.errors import PymicroError
from pymicro.plugins import Build
from pymicro.plugins.toolkit import log
from pymicro.record import ServiceRecord, merge
from pymicro.registry import Snapshot, SnapshotFeed
from pymicro_nats.connection import Link, Session
from pymicro_registry_nats import _wire
from pymicro_registry_nats._agent import Agent
from pymicro_registry_nats._options import NatsRegistryOptions
from pymicro_registry_nats._query import MOST_ANSWERS, ask

#: How many times the time for answers who was there before is waited for, before it is taken for gone.
_PATIENCE: Final = (1, 2, 4)

#: Seconds after an outage in which those who were there before may come back.
_SETTLE: Final = 3.0

#: Of one version of one service, the node's id.
_Key = tuple[str, str]


class _Entry(msgspec.Struct):
    record: ServiceRecord
    seen: float


class Mirror(Agent):
    """The state of what is watched, and a feed for each name; None for all services."""

    def __init__(self, link: Link, options: NatsRegistryOptions, build: Build) -> None:
        super().__init__(link, build, "nats watch")
        self._options = options
        self._feeds: dict[str | None, SnapshotFeed] = {}
        self._ready: set[str | None] = set()
        self._entries: dict[str, dict[_Key, _Entry]] = {}
        #: When nodes were deregistered, for answers that are older.
        self._gone: dict[tuple[str, _Key], float] = {}
        self._connected = -math.inf
        self._asks_next = 0.0
        self._full = False

    @asynccontextmanager
    async def watch(self, name: str | None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        """See `Registry.watch`."""
        feed = self._feeds.setdefault(name, SnapshotFeed())
        self.wake()
        try:
            with feed.watch() as snapshots:
                yield snapshots
        finally:
            if not feed.watched and self._feeds.get(name) is feed:
                self._forget(name)

    def close_feeds(self) -> None:
        """End every watch."""
        for feed in self._feeds.values():
            feed.close()

    def _forget(self, name: str | None) -> None:
        del self._feeds[name]
        self._ready.discard(name)
        for known in [known for known in self._entries if not self._follows(known)]:
            del self._entries[known]

    def _follows(self, name: str) -> bool:
        return name in self._feeds or None in self._feeds

    # the agent's part

    async def _begin(self, session: Session) -> None:
        self._ready.clear()
        self._asks_next = self._clock.monotonic()
        if self._entries:
            self._connected = self._asks_next
        await session.subscribe(self._options.watch_topic, "", self._told)

    async def _turn(self, session: Session) -> float | None:
        now = self._clock.monotonic()
        all_due = now >= self._asks_next
        due = {name for name in self._feeds if all_due or name not in self._ready}
        if due:
            missing = await self._ask(session, due)
            if all_due:
                settled = self._connected + _SETTLE
                now = self._clock.monotonic()
                self._asks_next = settled if missing and settled > now else now + self._options.refresh
        return self._asks_next if self._feeds else None

    def _failed(self, error: PymicroError) -> None:
        for feed in self._feeds.values():
            feed.fail(error)

    # asking

    async def _ask(self, session: Session, due: set[str | None]) -> bool:
        """Ask for these names, and tell their watchers; whether somebody is missing who may come back."""
        started = self._clock.monotonic()
        names = {name for name in due if name is not None}
        missing: list[tuple[str, _Key]] = []
        for times in _PATIENCE:
            await self._collect(session, names, everything=None in due, seconds=times * self._options.query_time)
            asked = set(self._entries) if None in due else names
            missing = [(name, key) for name in asked for key in self._unseen(name, started)]
            if not missing:
                break
        settling = self._clock.monotonic() < self._connected + _SETTLE
        if not settling:
            for name, key in missing:
                self._remove(name, key)
        for moment in [known for known, moment in self._gone.items() if moment < started]:
            del self._gone[moment]
        self._ready |= due & set(self._feeds)
        for each in [*self._feeds]:
            self._publish(each)
        return bool(missing) and settling

    async def _collect(self, session: Session, names: set[str], *, everything: bool, seconds: float) -> None:
        started = self._clock.monotonic()
        wanted = set(names)
        if everything:
            found = await ask(session, self._clock, self._options.query_topic, [_wire.list_all()], seconds)
            wanted |= {record.name for record in found} | set(self._entries)
        questions = [_wire.get(name) for name in sorted(wanted)]
        for record in await ask(session, self._clock, self._options.query_topic, questions, seconds):
            self._saw(record, started)

    def _unseen(self, name: str, since: float) -> Iterable[_Key]:
        return [key for key, entry in self._entries.get(name, {}).items() if entry.seen < since]

    # what is known

    def _saw(self, record: ServiceRecord, asked: float) -> None:
        """The record was told; or answered to a question of that moment."""
        if not self._follows(record.name):
            return
        entries = self._entries.setdefault(record.name, {})
        for node in record.nodes:
            key = (record.version, node.id)
            if self._gone.get((record.name, key), asked) > asked:
                continue
            if key not in entries and len(entries) >= MOST_ANSWERS:
                self._overflows(record.name)
                return
            entries[key] = _Entry(record.with_nodes([node]), self._clock.monotonic())

    def _overflows(self, name: str) -> None:
        if not self._full:
            self._full = True
            log(self._build.logger, logging.ERROR, "too many nodes", service=name, most=MOST_ANSWERS)

    def _remove(self, name: str, key: _Key) -> None:
        entries = self._entries.get(name, {})
        entries.pop(key, None)
        if not entries:
            self._entries.pop(name, None)

    async def _told(self, message: Any) -> None:
        action, record = _wire.read(message.data)
        if record is None or not self._follows(record.name):
            return
        now = self._clock.monotonic()
        if action == _wire.DELETE:
            for node in record.nodes:
                key = (record.version, node.id)
                self._gone[record.name, key] = now
                self._remove(record.name, key)
        elif action in (_wire.CREATE, "update"):
            for node in record.nodes:
                self._gone.pop((record.name, (record.version, node.id)), None)
            self._saw(record, now)
        self._publish(record.name)
        self._publish(None)

    def _publish(self, name: str | None) -> None:
        feed = self._feeds.get(name)
        if feed is None or name not in self._ready:
            return
        wanted = self._entries.values() if name is None else [self._entries.get(name, {})]
        feed.publish(merge(entry.record for entries in wanted for entry in entries.values()))
