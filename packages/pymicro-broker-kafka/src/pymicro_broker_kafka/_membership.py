"""A member of a consumer group: its share of a topic's partitions, for a subscription with a queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from pymicro_broker_kafka._assignor import KeepBusy
from pymicro_broker_kafka._bridge import future_of
from pymicro_broker_kafka._client import Settings
from pymicro_broker_kafka._driver import (
    ConsumerRebalanceListener,
    MemberState,
    OffsetAndMetadata,
    RangePartitionAssignor,
    TopicPartition,
)
from pymicro_broker_kafka._driver import errors as driver
from pymicro_broker_kafka._polled import POLL, Owner, Polled
from pymicro_broker_kafka._progress import Progress

_JOIN: Final = 1.0  # seconds of one wait until the group is joined, also for a consumer that closes
_BEGIN: Final = 1.0  # seconds for which the other consumers of a new queue are waited for


class Membership(Polled, ConsumerRebalanceListener):  # type: ignore[misc]  # the driver has no types
    """Reads what is its share.

    Args:
        settings, topic, kept, owner: as in `Polled`.
        queue: the consumer group.
        assignor: shares out the partitions.
    """

    def __init__(
        self, settings: Settings, topic: str, kept: bool, owner: Owner, queue: str, assignor: KeepBusy
    ) -> None:
        super().__init__(settings, topic, kept, owner)
        self._queue = queue
        self._assignor = assignor
        #: As whom, and in which generation: what the thread saw last, and what the owner was told.
        self._joined = ("", -1)
        self._told = ("", -1)
        self._begun = 0.0

    # for the event loop

    def rejoin(self) -> None:
        """Have the partitions shared out anew."""
        if self.made:
            self._group.request_rejoin()
            self.wake()

    @property
    def joining(self) -> bool:
        """Whether the group has to be joined, or is being joined."""
        rebalancing: bool = self.consumer.group_metadata().state == MemberState.REBALANCING
        return rebalancing or bool(self._group.need_rejoin())

    def commit(self, offsets: dict[Any, tuple[int, str]]) -> asyncio.Future[Any]:
        """Commit offsets with their texts.

        The consumer's own method must not be called while another thread polls; what it calls may be.

        Raises:
            kafka.errors.RebalanceInProgressError: the owner was not told yet what is its share now. The server would
                take what it says, and perhaps of a log that is no more.
        """
        if self._told != self._now:
            raise driver.RebalanceInProgressError
        known = {tp: OffsetAndMetadata(offset, text, -1) for tp, (offset, text) in offsets.items()}
        return future_of(self._group._do_commit_offsets_async(known, _ignore))

    # the thread

    @property
    def _now(self) -> tuple[str, int]:
        group = self.consumer.group_metadata()
        return group.member_id, group.generation_id

    def _tell_joined(self, joined: tuple[str, int]) -> None:
        self._told = joined

    @property
    def _group(self) -> Any:
        """What the driver has no public names for."""
        return self.consumer._coordinator

    def config(self) -> Mapping[str, Any]:
        options = self.settings.options
        return {
            "group_id": self._queue,
            "session_timeout_ms": round(options.session_timeout * 1000),
            "heartbeat_interval_ms": round(min(options.heartbeat, options.session_timeout / 3) * 1000),
            # The second is what Go Micro's consumers know, for queues that are shared with them.
            "partition_assignment_strategy": (self._assignor, RangePartitionAssignor),
        }

    def begin(self) -> None:
        self.consumer.subscribe([self.topic], listener=self)

    @property
    def hurried(self) -> bool:
        return self.joining

    def prepare(self) -> None:
        """Wait while the group is joined, if it has to be.

        `poll` does it, too; but when its time is over before that ends, and it ends before the next `poll`, the driver
        joins once more. Then all others have to do so, and that can go on for long. And if it joins because of new
        partitions, it forgets that it does as soon as it has shared them out, and stays half joined: so it is told.
        """
        if self.joining:
            self._group.request_rejoin()
            self._group.poll(timeout_ms=(_JOIN if self.net.connected else POLL) * 1000)

    def leave(self) -> None:
        # A consumer that is closed while it joins would keep the others waiting until its session ends, from the
        # moment on at which the server gave it a name.
        known = self.consumer.group_metadata()
        if known.member_id and known.state != MemberState.STABLE:
            with suppress(Exception):
                self.prepare()

    def on_partitions_revoked(self, revoked: Any) -> None:
        """The driver's hook: a rebalance begins. What is kept is known when it ended."""

    def on_partitions_assigned(self, assigned: Any) -> None:
        """The driver's hook: nothing is fetched until the thread has found out where to begin.

        A request on its way would hold up those that ask for it, as servers answer one after the other.
        """
        for tp in set(assigned) - (set() if self.lost else self.mine):
            self.consumer.pause(tp)

    def on_partitions_lost(self, lost: Any) -> None:
        """The driver's hook: others may have had the partitions meanwhile."""
        self.lost = True

    def follow(self) -> None:
        """See whether partitions came or went."""
        # The driver asks for what it lacks, but forgets to if it is just being told of something else.
        for topic in self._assignor.missing:
            self.consumer.partitions_for_topic(topic)
        if self.consumer.group_metadata().state != MemberState.STABLE:
            return
        joined = self._now
        if joined[0] != self._joined[0]:  # the server did not know it any longer; the driver does not always say so
            self.lost = True
        assigned = set(self.consumer.assignment())
        kept = set() if self.lost else self.mine & assigned
        new = assigned - kept
        if joined != self._joined or new or kept != self.mine:
            begun = self._begin(new) if new else {}
            self.lost = False
            self._joined = joined
            self.mine = assigned
            self.tell(self.owner.on_assigned, kept, begun)
            self.tell(self._tell_joined, joined)
            self.tell(self.owner.on_release, self._to_release())
        if not self.ready and not self._unknown() and self._all_begun():
            self.say_ready()

    def _unknown(self) -> bool:
        return self._assignor.generation == self._joined[1] and self._assignor.orders.unknown

    def _to_release(self) -> set[Any]:
        if self._assignor.generation != self._joined[1]:
            return set()  # another client's way of sharing was chosen
        return {TopicPartition(*pair) for pair in self._assignor.orders.release}

    def _begin(self, new: set[Any]) -> dict[Any, Progress]:
        """Where to go on in partitions that are new to this consumer. Those of a new queue get their first commit."""
        found = self._committed()
        begun = max((Progress(at.offset, at.metadata).partitions for at in found.values()), default=0)
        count = len(self.partitions())
        progress = {tp: Progress(found[tp].offset, found[tp].metadata, count) for tp in new & set(found)}
        missing = new - set(progress)
        if missing:
            # A partition that came after the queue began, or that a server lost, is taken from its beginning.
            new_queue = not (self.kept or self.ready)
            fresh = {tp for tp in missing if new_queue and (not found or tp.partition < begun)}
            offsets = self.consumer.end_offsets(fresh, timeout_ms=self.settings.patience) if fresh else {}
            if missing - fresh:
                offsets |= self.consumer.beginning_offsets(missing - fresh, timeout_ms=self.settings.patience)
            progress |= {tp: Progress(offsets[tp], "", begun or count) for tp in missing}
            first = {tp: OffsetAndMetadata(progress[tp].first, progress[tp].text, -1) for tp in missing}
            self.consumer.commit(first, timeout_ms=self.settings.patience)
        for tp in new:
            self.seek(tp, progress[tp].first)
        return progress

    def _committed(self) -> dict[Any, Any]:
        """What is committed of each partition where something is, by one request for all."""
        wanted = [TopicPartition(self.topic, each) for each in self.partitions()]
        found: dict[Any, Any] = self._group.fetch_committed_offsets(wanted, timeout_ms=self.settings.patience)
        return found

    def _all_begun(self) -> bool:
        """Whether each partition has its first commit: until then others may begin later than this consumer said."""
        self._begun = self._begun or time.monotonic()
        return time.monotonic() > self._begun + _BEGIN or len(self._committed()) == len(self.partitions())


def _ignore(*_: Any) -> None:
    pass
