"""Follows a range of keys: the full state first, then each change, through whatever happens to the server."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aetcd import rpc

from pymicro.clock import Clock
from pymicro.record import ServiceRecord, merge
from pymicro.registry.follower import Follower, SettlingFeed
from pymicro.registry.wire import read_record
from pymicro_registry_etcd._client import Entry, EtcdServer, State
from pymicro_registry_etcd._session import Session
from pymicro_registry_etcd._wire import prefix


class KeyFollower(Follower):
    """Keeps up what lies in a range of keys.

    Each connection begins with all of it and goes on with the changes since. Changes that were missed are not asked
    for: that would save a little, and loses nodes when etcd compacted them or lost its data.

    Args:
        session: whom to ask.
        clock: times the pauses between attempts.
        keys: the first key, and the one after the last.
    """

    def __init__(self, session: Session, clock: Clock, keys: tuple[bytes, bytes]) -> None:
        super().__init__(clock, f"etcd watch {keys[0].decode(errors='replace')}")
        self._session, self._keys = session, keys

    @abstractmethod
    def _changed(self, entries: Mapping[bytes, Entry]) -> None:
        """This is everything that lies there, first and after each change."""

    async def _follow(self) -> None:
        state = await self._session.call(self._read)
        async with state.server.changes(*self._keys, state) as changes:
            self._works()
            self._changed(state.entries)
            async for events in changes:
                if events:
                    self._apply(state, events)
                    self._changed(state.entries)

    async def _read(self, server: EtcdServer) -> State:
        return await server.read(*self._keys)

    def _apply(self, state: State, events: Sequence[Any]) -> None:
        for event in events:
            if event.type == rpc.Event.DELETE:
                state.entries.pop(event.kv.key, None)
            else:
                state.entries[event.kv.key] = Entry(event.kv.value, event.kv.lease)


class ServiceFollower(KeyFollower):
    """Tells a feed what is registered.

    Args:
        session, clock: see `KeyFollower`.
        feed: told of everything.
        name: of the service; None for all.
    """

    def __init__(self, session: Session, clock: Clock, feed: SettlingFeed, name: str | None) -> None:
        super().__init__(session, clock, prefix(name))
        self._feed, self._name = feed, name
        self._known: dict[bytes, tuple[Entry, ServiceRecord | None]] = {}

    def _changed(self, entries: Mapping[bytes, Entry]) -> None:
        before, self._known = self._known, {}
        for key, entry in sorted(entries.items()):
            known = before.get(key)
            # Only what changed is decoded: there may be many that did not.
            self._known[key] = known if known is not None and known[0] == entry else (entry, read_record(entry.value))
        self._feed.publish(merged((record for _, record in self._known.values() if record), self._name))

    def _failed(self, error: Exception) -> None:
        """An etcd that lost its data, or was away for longer than their TTL, hears of services that run again."""
        self._feed.lose(error)


def merged(records: Iterable[ServiceRecord], name: str | None) -> tuple[ServiceRecord, ...]:
    """By version. Keys do not tell `a/b` from `a-b`, so the names in the records do."""
    return merge(record for record in records if name in (None, record.name) and record.nodes)
