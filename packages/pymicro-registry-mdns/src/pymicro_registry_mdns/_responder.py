"""Tells peers of the services that run here: answers questions, announces and says goodbye."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from pymicro.clock import Clock, TimerHandle
from pymicro.errors import BackendUnavailable
from pymicro_registry_mdns._dns import Question
from pymicro_registry_mdns._interfaces import PORT
from pymicro_registry_mdns._network import Address, Network
from pymicro_registry_mdns._packets import Entry, Wire

#: Seconds after the first announcement at which it is repeated, as Go Micro does.
REPEAT: Final = (1.0, 3.0)

#: Seconds in which the same question of the same asker counts as one that came by two ways.
SAME: Final = 0.1

_MAX_REMEMBERED: Final = 1024


class Responder:
    """Speaks for what this process registered. Entries belong to an owner, who replaces or withdraws them together."""

    def __init__(self, wire: Wire, network: Network, clock: Clock) -> None:
        self._wire, self._network, self._clock = wire, network, clock
        self._entries: dict[object, dict[str, Entry]] = {}
        self._timers: dict[object, list[TimerHandle]] = {}
        self._answered = _Recent(clock)

    def put(self, owner: object, entries: tuple[Entry, ...]) -> None:
        """Speak for `entries` and announce them; what the owner had before is replaced."""
        self._entries[owner] = {entry.instance: entry for entry in entries}
        self._announce_repeatedly(owner)

    def drop(self, owner: object) -> None:
        """Say goodbye for the owner's entries, once. Nothing happens when there are none."""
        for timer in self._timers.pop(owner, ()):
            timer.cancel()
        held = self._held()
        dropped = self._entries.pop(owner, {})
        left = self._held()
        for instance in dropped.keys() & held.keys() - left.keys():
            self._speak(self._wire.announcement(dropped[instance], ttl=0))

    def announce_all(self) -> None:
        """Announce everything again: there are new interfaces."""
        for owner in self._entries:
            self._announce_repeatedly(owner)

    def hear(self, data: bytes, asker: Address) -> Iterator[bytes]:
        """The answers to a packet that came from `asker`; none to what is no question or concerns others."""
        # From this port come probes and stock mDNS libraries; an answer to it would set Go responders off.
        if asker[1] == PORT or not self._entries:
            return
        query = self._wire.read_query(data)
        if query is None:
            return
        id, questions = query
        host = "" if self._network.is_own(asker[0]) else asker
        held = self._held()
        for question in questions:
            if not self._answered.seen((host, id, question)):
                yield from self._wire.answers(question, held)

    def _held(self) -> dict[str, Entry]:
        return {instance: entry for entries in self._entries.values() for instance, entry in entries.items()}

    def _announce_repeatedly(self, owner: object) -> None:
        for timer in self._timers.pop(owner, ()):
            timer.cancel()
        self._announce(owner)
        self._timers[owner] = [self._clock.call_later(seconds, self._announce, owner) for seconds in REPEAT]

    def _announce(self, owner: object) -> None:
        for entry in self._entries[owner].values():
            self._speak(self._wire.announcement(entry))

    def _speak(self, packet: bytes) -> None:
        # Without a network nobody hears it. Everything is announced again when there is one.
        with suppress(BackendUnavailable):
            self._network.speak(packet)


class _Recent:
    """Questions that were answered a moment ago. One question comes by several interfaces."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[tuple[Any, int, Question], float] = {}

    def seen(self, key: tuple[Any, int, Question]) -> bool:
        """Whether it was asked within `SAME`; it counts as asked from now on."""
        now = self._clock.monotonic()
        if len(self._until) >= _MAX_REMEMBERED:
            self._until = {key: until for key, until in self._until.items() if until > now}
        if len(self._until) >= _MAX_REMEMBERED:
            self._until.clear()  # under a flood, answering twice does less harm than remembering all
        seen = self._until.get(key, 0.0) > now
        self._until[key] = now + SAME
        return seen
