"""Who of a queue's consumers has which partitions.

Partitions with messages that a handler has in hands stay where they are, so that a rebalance repeats nothing. Who has
more than its share because of that is told to let go of the rest: it begins no more of their messages, and asks for
another rebalance when those that it has are settled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from pymicro_broker_kafka._driver import (
    AbstractPartitionAssignor,
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)

_VERSION: Final = 0


class Member(msgspec.Struct, frozen=True):
    """What a consumer says of itself when it joins.

    Attributes:
        busy: topics and partitions of which it has messages in hands.
        owned: all that it has.
        leaving: it wants nothing more than to settle those.
    """

    busy: tuple[tuple[str, int], ...] = ()
    owned: tuple[tuple[str, int], ...] = ()
    leaving: bool = False


class Orders(msgspec.Struct, frozen=True):
    """What the leader tells a consumer besides its partitions.

    Attributes:
        release: which it shall let go of.
        unknown: the leader does not know yet how many partitions there are, and will assign again.
    """

    release: tuple[tuple[str, int], ...] = ()
    unknown: bool = False


_encode: Final = msgspec.json.encode
_members: Final = msgspec.json.Decoder(Member)
_orders: Final = msgspec.json.Decoder(Orders)


def share(partitions: Sequence[int], members: Mapping[str, Member], topic: str) -> dict[str, list[int]]:
    """The partitions of one topic for each member: busy ones to their owner, the rest as evenly as that allows."""
    given: dict[str, list[int]] = {name: [] for name in members}
    free = set(partitions)

    def give(name: str, wanted: Iterable[tuple[str, int]], most: int) -> None:
        for where, partition in wanted:
            if where == topic and partition in free and len(given[name]) < most:
                free.discard(partition)
                given[name].append(partition)

    for name, member in members.items():
        give(name, member.busy, len(partitions))
    takers = [name for name, member in members.items() if not member.leaving] or list(members)
    takers.sort(key=lambda name: (-len([each for each in members[name].owned if each[0] == topic]), name))
    quota, extra = divmod(len(partitions), len(takers))
    for place, name in enumerate(takers):
        give(name, members[name].owned, quota + (place < extra))
    for partition in sorted(free):
        given[min(takers, key=lambda name: len(given[name]))].append(partition)
    return given


def too_many(given: Mapping[str, Collection[int]], members: Mapping[str, Member]) -> dict[str, int]:
    """By how many partitions a member is over its share, if another member is below it."""
    takers = [name for name in given if not members[name].leaving]
    if not takers:
        return {}
    total = sum(map(len, given.values()))
    least = total // len(takers)
    needed = sum(max(0, least - len(given[name])) for name in takers)
    over: dict[str, int] = {}
    for name in sorted(takers, key=lambda name: -len(given[name])):
        share_of = min(needed, max(0, len(given[name]) - least))
        if share_of:
            over[name] = share_of
            needed -= share_of
    return over


class KeepBusy(AbstractPartitionAssignor):  # type: ignore[misc]  # the driver has no types
    """The driver's hook for all this. Its methods are called on the driver's thread.

    Args:
        member: what this consumer says of itself, at any time.
    """

    name = "pymicro"

    def __init__(self, member: Callable[[], Member]) -> None:
        self._member = member
        #: What the leader said last, and in which generation.
        self.orders = Orders()
        self.generation = -1
        #: As a leader: topics of which it does not know how many partitions there are.
        self.missing: frozenset[str] = frozenset()

    def metadata(self, topics: Collection[str]) -> Any:
        return ConsumerProtocolSubscription(_VERSION, sorted(topics), _encode(self._member()))

    def on_assignment(self, assignment: Any, generation: int) -> None:
        self.orders = _decoded(_orders, assignment.user_data, Orders())
        self.generation = generation

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, Any]:
        known = {each.member_id: _decoded(_members, each.metadata.user_data, Member()) for each in members}
        topics = {each.member_id: set(each.metadata.topics) for each in members}
        given: dict[str, list[tuple[str, list[int]]]] = {name: [] for name in known}
        release: dict[str, list[tuple[str, int]]] = {name: [] for name in known}
        unknown: set[str] = set()
        missing: set[str] = set()
        for topic in sorted(set().union(*topics.values())):
            concerned = {name: member for name, member in known.items() if topic in topics[name]}
            partitions = cluster.partitions_for_topic(topic)
            if not partitions:
                unknown |= set(concerned)
                missing.add(topic)
                continue
            shares = share(sorted(partitions), concerned, topic)
            for name, number in too_many(shares, concerned).items():
                release[name] += [(topic, partition) for partition in shares[name][-number:]]
            for name, mine in shares.items():
                given[name].append((topic, sorted(mine)))
        self.missing = frozenset(missing)
        return {
            name: ConsumerProtocolAssignment(
                _VERSION, given[name], _encode(Orders(tuple(release[name]), name in unknown))
            )
            for name in known
        }


def _decoded(decoder: Any, data: bytes | None, default: Any) -> Any:
    try:
        return decoder.decode(data or b"")
    except msgspec.DecodeError:  # another client's
        return default
