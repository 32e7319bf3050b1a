"""One consumer in one consumer group, as far as the server knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pymicro.clock import Clock
from pymicro.errors import BackendUnavailable
from pymicro_broker_redis import _wire
from pymicro_broker_redis._link import Line, Link
from pymicro_broker_redis._options import RedisBrokerOptions
from pymicro_broker_redis._wire import Entry, Keys

_MOST_OWN: Final = 10_000
_FORGET_NAMES: Final = 600_000  # milliseconds after which the name of an idle consumer is forgotten
_GRACE: Final = 10.0  # seconds that a silent subscription has to show itself after it was found silent
_AGAIN: Final = 0.2  # seconds between attempts to tell the server something


class Tended(NamedTuple):
    """What `Group.tend` found.

    Attributes:
        entries: taken over: retried ones that are due, and those of dead consumers.
        due: seconds until the next retried one; None for none.
        own: ids that the consumer holds.
    """

    entries: list[Entry]
    due: float | None
    own: list[bytes]


def sweep_args(options: RedisBrokerOptions, keys: Keys, topic: str) -> tuple[Any, ...]:
    """The arguments that scripts which sweep have in common."""
    silence = options.forget_after
    return round(silence * 1000), round(min(_GRACE, silence) * 1000), keys.delayed_prefix, topic


class Group:
    """What one consumer tells and asks the server.

    Args:
        link: the way to the server.
        options: bounds and times.
        topic: the topic.
        name: the group.
        consumer: the consumer's name, its alone.
        clock: the time between attempts.
        timeout: seconds for which a settlement is tried again while the server is away.
    """

    def __init__(
        self,
        link: Link,
        options: RedisBrokerOptions,
        topic: str,
        name: str,
        consumer: str,
        clock: Clock,
        timeout: float,
    ) -> None:
        self._link = link
        self._keys = keys = Keys(options.prefix, topic)
        self._all = (keys.stream, keys.alive, keys.delayed(name))
        self._who = (name, consumer)
        self._sweep = sweep_args(options, keys, topic)
        self._lease = round(options.claim_after * 1000)
        self._clock = clock
        self._timeout = timeout
        #: Set when the consumer closes: nothing is tried again.
        self.hurried = False

    async def attach(self, start: str) -> str:
        """Make sure that group and consumer exist; the last id that the group was given."""
        last: bytes = await self._link.run("attach", self._all[:2], (*self._who, start))
        return last.decode()

    async def read(self, line: Line, limit: int, wait: float) -> list[Entry]:
        """New entries, at most `limit`; none if none came in `wait` seconds."""
        block = max(1, round(wait * 1000))
        reply = await line.ask(
            "XREADGROUP", "GROUP", *self._who, "COUNT", limit, "BLOCK", block, "STREAMS", self._keys.stream, ">"
        )
        return _wire.entries_of(reply)

    async def tend(self, limit: int, own: bool) -> Tended:
        """Show that the consumer lives, clear what is dead, take over at most `limit` entries; list the own ones."""
        args = (*self._who, limit, self._lease, _MOST_OWN if own else 0, _FORGET_NAMES, *self._sweep)
        taken, due, held = await self._link.run("tend", self._all, args)
        return Tended([Entry(*row) for row in taken], None if due < 0 else due / 1000, held)

    async def ack(self, ids: Sequence[bytes]) -> Sequence[Any]:
        """The messages are done."""
        await self._persist("ack", self._all[:1], (self._who[0], *ids))
        return [None] * len(ids)

    async def retry(self, entries: Sequence[tuple[bytes, float, int]]) -> Sequence[Any]:
        """Have entries delivered again: id, seconds until then, and by how much less they shall count."""
        args = [arg for id, delay, less in entries for arg in (id, round(delay * 1000), less)]
        await self._persist("retry", (self._all[0], self._all[2]), (*self._who, *args))
        return [None] * len(entries)

    async def extend(self, ids: Sequence[bytes]) -> Sequence[bool]:
        """Hold entries longer; False for those that the consumer does not hold any more."""
        return [bool(held) for held in await self._persist("extend", self._all[:1], (*self._who, *ids))]

    async def _persist(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run what may run twice; while the server is away it is tried again, for as long as an operation may take."""
        end = self._clock.monotonic() + self._timeout
        while True:
            try:
                return await self._link.run(script, keys, args)
            except BackendUnavailable:
                if self.hurried or self._clock.monotonic() + _AGAIN >= end:
                    raise
            await self._clock.sleep(_AGAIN)

    async def leave(self) -> None:
        """Give back what the consumer holds, and forget it."""
        await self._link.run("leave", self._all, (*self._who, *self._sweep))

    async def interrupt(self, client: int) -> None:
        """End the wait of the connection with this id."""
        await self._link.command("CLIENT", "UNBLOCK", client)
