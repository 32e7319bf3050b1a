"""A subscription with a queue: a consumer of the consumer group of that name.

What was handed out is committed before it is handed out, and what was settled afterwards, both by one task that puts
all that gathered meanwhile into one commit. A settlement returns when its commit was taken.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec

from pymicro.broker import Delivery, Retry, Settlement
from pymicro.errors import BackendUnavailable
from pymicro_broker_kafka._assignor import KeepBusy, Member
from pymicro_broker_kafka._consumer import Held, KafkaConsumer, Source
from pymicro_broker_kafka._errors import mapped
from pymicro_broker_kafka._membership import Membership
from pymicro_broker_kafka._progress import Progress

_AGAIN: Final = 0.05  # seconds before a commit that failed is tried again
_LAST: Final = 2.0  # seconds for the last commit
_QUIET: Final = 3  # turns of the event loop in which nothing is settled, until what was is committed


class Waiter(msgspec.Struct, frozen=True):
    """Somebody who waits for a commit.

    Attributes:
        version: what has to be committed.
        progress: the partition.
        future: where they wait.
        until: for how long, by the loop's time.
    """

    version: int
    progress: Progress
    future: asyncio.Future[None]
    until: float

    def succeed(self) -> None:
        """It was committed."""
        if not self.future.done():
            self.future.set_result(None)

    def fail(self, error: BackendUnavailable) -> None:
        """It was not."""
        if not self.future.done():
            self.future.set_exception(error)


class QueueConsumer(KafkaConsumer):
    """Partitions of a topic, shared with the other consumers of the queue.

    Args:
        source: what it is made of.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._claiming: list[Held] = []
        self._touched: dict[Any, int] = {}  # partitions to commit, and the version that changed each last
        self._version = 0
        self._where: dict[Progress, Any] = {}  # the partition of each
        self._ahead = 0  # settled since the last commit
        self._waiters: deque[Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        #: Deliveries whose settlement the server may not know, or that are with another consumer by now.
        self._unsure: weakref.WeakKeyDictionary[Delivery[Any], Progress] = weakref.WeakKeyDictionary()
        self._work = asyncio.Event()
        self._failure: Exception | None = None
        self._releasing: set[Any] = set()
        self._says = Member()
        self._committer: asyncio.Task[None] | None = None

    def _make(self) -> Membership:
        source = self.source
        self._member = Membership(
            source.settings, source.topic, source.kept, self, source.queue, KeepBusy(lambda: self._says)
        )
        return self._member

    async def start(self) -> None:
        self._committer = asyncio.get_running_loop().create_task(
            self._commit_all(), name=f"kafka commit {self.source.topic}"
        )
        await super().start()

    @property
    def _patience(self) -> float:
        # Until the session of a consumer that died is over, the server lets nobody else join; and who gave up
        # meanwhile would be the next one that the others wait for.
        return self.source.build.timeout + self.source.settings.options.session_timeout

    # partitions

    def _changed(self) -> None:
        """Bring up to date what is said to the other consumers, before anything is committed."""
        busy = tuple((tp.topic, tp.partition) for tp in self._partitions if self._busy(tp))
        owned = tuple((tp.topic, tp.partition) for tp in self._partitions)
        self._says = Member(busy, owned, self._detached)
        if self._releasing and not any(self._busy(tp) for tp in self._releasing):
            self._releasing = set()
            self._member.rejoin()
        if self._detached and not busy:
            self._polled.stop()
        super()._changed()

    def _busy(self, tp: Any) -> bool:
        """Whether a record of it is in hands, or something is not committed."""
        return tp in self._partitions and (self._partitions[tp].busy or tp in self._touched)

    def on_assigned(self, kept: set[Any], new: dict[Any, Progress]) -> None:
        self._releasing = set()
        held = dict(self._held)
        super().on_assigned(kept, new)
        self._where = {progress: tp for tp, progress in self._partitions.items()}
        self._unsure.update({one: each.progress for one, each in held.items() if one not in self._held})
        self._claiming = [held for held in self._claiming if self._mine(held.progress)]
        self._touched = {tp: version for tp, version in self._touched.items() if tp in kept}
        for waiter in self._waiters:
            if not self._mine(waiter.progress):
                waiter.fail(BackendUnavailable("the message went to another consumer of its queue"))
        self._work.set()

    def on_release(self, partitions: set[Any]) -> None:
        self._releasing = partitions & set(self._partitions)
        self._changed()

    def _mine(self, progress: Progress) -> bool:
        return progress in self._where

    # handing out

    def _want(self, number: int) -> None:
        number -= len(self._claiming)
        if number <= 0:
            return
        chosen = self._take(number)
        for held in chosen:
            held.count = held.progress.claim(held.record.offset)
        if chosen:
            self._claiming += chosen
            self._changed()
            self._touch(held.progress for held in chosen)

    def _take(self, number: int) -> list[Held]:
        """Records of partitions that have room for more, and that nobody else shall have."""
        taken: list[Held] = []
        fresh = 0
        closed = {id(progress) for tp, progress in self._partitions.items() if tp in self._releasing}
        for records in (self._again, self._waiting):
            left = []
            while records and len(taken) < number:
                held = records.popleft()
                if id(held.progress) in closed or held.progress.full:
                    left.append(held)
                    continue
                taken.append(held)
                fresh += records is self._waiting
            records.extendleft(reversed(left))
        if fresh:
            self._polled.grant(fresh)
        return taken

    # settling

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        held = self._held.pop(delivery, None)
        if held is None and (delivery not in self._unsure or isinstance(settlement, Retry)):
            return
        if held is not None and isinstance(settlement, Retry):
            self._give_back(held)
            return
        progress = self._unsure[delivery] if held is None else held.progress
        if held is not None:
            self._settled(held)
        try:
            await self._committed(progress)
        except BaseException:
            self._unsure[delivery] = progress
            raise
        if held is None:
            self._unsure.pop(delivery, None)

    def _give_back(self, held: Held) -> None:
        """Its count was committed before it was handed out, so there is nothing to tell."""
        held.progress.release(held.record.offset)
        if not self._detached:
            self._again.append(held)
        self._changed()

    def _settled(self, held: Held) -> None:
        self._ahead += 1
        super()._settled(held)
        self._touch([held.progress])

    # committing

    def _touch(self, changed: Iterable[Progress]) -> None:
        """Have these committed."""
        self._version += 1
        for progress in changed:
            if progress in self._where:
                self._touched[self._where[progress]] = self._version
        self._work.set()

    async def _committed(self, progress: Progress) -> None:
        """Wait until what changed so far was committed.

        Raises:
            BackendUnavailable: it was not; or the partition went to another consumer.
        """
        if not self._mine(progress):
            raise BackendUnavailable("the message went back to its queue", self.source.settings.address)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiters.append(Waiter(self._version, progress, future, loop.time() + self.source.build.timeout))
        self._watch()
        await future

    def _watch(self) -> None:
        """Have one timer for all who wait: they came one after the other, and each has the same time."""
        if self._timer is None and self._waiters:
            self._timer = asyncio.get_running_loop().call_at(self._waiters[0].until, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        address = self.source.settings.address
        why = mapped(self._failure, address) if self._failure else BackendUnavailable("no answer in time", address)
        now = asyncio.get_running_loop().time()
        while self._waiters and self._waiters[0].until <= now:
            error = BackendUnavailable(f"not settled: {why}")
            error.__cause__ = self._failure
            self._waiters.popleft().fail(error)
        self._watch()

    async def _commit_all(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._touched and self._polled.made:
                try:
                    await self._gather()
                    await self._commit()
                except Exception as error:  # in a rebalance, or without a server: what is still ours is tried again
                    self._failure = error
                    await asyncio.sleep(_AGAIN)

    async def _gather(self) -> None:
        """Wait for what is settled in the next turns of the loop, which else would wait for a commit of its own.

        One takes servers 5 ms and more (`group.coordinator.append.linger.ms`).
        """
        quiet = 0
        while quiet < _QUIET and self._held:
            before = self._version
            await asyncio.sleep(0)
            quiet = quiet + 1 if before == self._version else 0

    async def _commit(self) -> None:
        ahead = min(self._ahead, self.source.prefetch - len(self._held) - len(self._here))
        self._ahead = 0
        if not self._detached:  # who settled asks for as many next, and shall not wait for another commit
            self._want(ahead)
        version, claimed = self._version, [*self._claiming]
        offsets = {
            tp: (progress.first, progress.text) for tp, progress in self._partitions.items() if tp in self._touched
        }
        if offsets:
            await self._member.commit(offsets)
        self._failure = None
        still = {id(held) for held in self._claiming}
        self._here.extend(held for held in claimed if id(held) in still)
        self._claiming = self._claiming[len([held for held in claimed if id(held) in still]) :]
        self._touched = {tp: last for tp, last in self._touched.items() if last > version}
        while self._waiters and self._waiters[0].version <= version:
            self._waiters.popleft().succeed()
        self._changed()

    # leaving

    async def detach(self) -> None:
        if self._detached:
            return
        self._detached = True
        self._drop_unseen()
        self._changed()
        if any(self._busy(tp) for tp in self._partitions):
            self._member.rejoin()  # those that are not busy go to others now, the rest when it is settled
        else:
            await self._wait_for_the_end()

    def _drop_unseen(self) -> None:
        unseen = [*self._claiming, *self._here]
        for held in unseen:
            held.progress.unclaim(held.record.offset)
        self._touch(held.progress for held in unseen)
        for records in (self._claiming, self._here, self._waiting, self._again):
            records.clear()

    async def _leave(self) -> None:
        self._detached = True
        self._drop_unseen()
        self._work.set()
        try:
            if self._touched and self._connected:
                with suppress(BackendUnavailable, TimeoutError):
                    async with asyncio.timeout(_LAST):
                        await self._committed(next(iter(self._partitions.values())))
        finally:
            if self._committer is not None:
                self._committer.cancel()
                await asyncio.wait({self._committer})
            if self._timer is not None:
                self._timer.cancel()
            for waiter in self._waiters:
                waiter.fail(BackendUnavailable("the consumer was closed"))
            await super()._leave()
