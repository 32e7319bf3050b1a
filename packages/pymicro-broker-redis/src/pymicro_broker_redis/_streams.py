"""A subscription to a stream: a member of a consumer group."""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from pymicro.broker import Consumer, Delivery, Retry, Settlement
from pymicro.clock import Clock
from pymicro.errors import BackendRefused, BackendUnavailable, Closed, ConnectionFailed
from pymicro.plugins.toolkit import log
from pymicro_broker_redis import _wire
from pymicro_broker_redis._batch import Batch
from pymicro_broker_redis._faults import Fault
from pymicro_broker_redis._group import Group
from pymicro_broker_redis._link import LONGEST_BLOCK, Link
from pymicro_broker_redis._wire import Entry

_TEND: Final = 0.5  # seconds between two looks at what others left
_DOUBT: Final = 3 * LONGEST_BLOCK  # an old connection may be served until the server notices that it is gone
_POLL: Final = 0.05


class StreamConsumer(Consumer):
    """Takes entries from the stream while `receive` waits for them.

    One task does that, and twice a second what the group needs: take over what dead consumers held, what was retried
    and is due; show that this consumer lives. It waits in the server, and is called back (`CLIENT UNBLOCK`) to detach
    or for a retry that is due earlier.

    The server remembers who holds an entry. After a fault, what it gave to this consumer and did not arrive here is
    found by comparing, and goes back without counting as a delivery.

    Args:
        link: for the connection on which it waits.
        group: the group and this consumer's name.
        topic, prefetch: as in `Broker.consume`.
        lease: seconds of `claim_after`.
        clock, logger: the time, and who hears of interruptions.
        timeout: seconds for detaching and closing together.
        closing: called once, when the consumer closed.
    """

    def __init__(
        self,
        link: Link,
        group: Group,
        topic: str,
        prefetch: int,
        lease: float,
        clock: Clock,
        logger: logging.Logger,
        timeout: float,
        closing: Callable[[StreamConsumer], None],
    ) -> None:
        self.lease = lease
        self._group = group
        self._topic = topic
        self._prefetch = prefetch
        self._clock = clock
        self._logger = logger
        self._timeout = timeout
        self._closing = closing
        self._line = link.connection()
        self._client = 0
        self._fault = Fault(logger, topic=topic)
        self._acks: Batch[bytes] = Batch(group.ack)
        self._extensions: Batch[bytes] = Batch(group.extend)
        self._last = "$"
        self._attached = False
        self._detached = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._receiving = 0
        self._buffer: deque[tuple[Entry, float]] = deque()
        self._held: dict[Delivery[Any], bytes] = {}
        self._settling: set[Delivery[Any]] = set()
        #: Deliveries whose settlement the server may not know: they can be settled again, and come again.
        self._unsure: weakref.WeakKeyDictionary[Delivery[Any], bytes] = weakref.WeakKeyDictionary()
        self._handed: set[bytes] = set()
        self._tend_at = 0.0
        self._due_at = math.inf
        self._doubt_until = -math.inf
        self._blocked_until = -math.inf

    async def start(self, start: str) -> None:
        """Attach: a group that does not exist yet begins at `start`, which is `$`, `0` or an id."""
        self._last = start
        await self._attach()
        self._due_at = self._clock.monotonic()  # what others left may be due: look as soon as somebody asks
        self._tend_at = self._due_at + _TEND
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"redis {self._topic}")

    @property
    def attached(self) -> bool:
        return self._attached and not self._detached

    # the task

    async def _run(self) -> None:
        try:
            while not self._detached:
                try:
                    await self._serve()
                except ConnectionFailed as error:
                    self._attached = False
                    self._doubt()
                    await self._line.aclose()
                    self._changed.clear()
                    await self._pause(self._fault.failed(error))
        finally:
            self._attached = False
            self._news.set()
            await self._line.aclose()

    async def _serve(self) -> None:
        if not self._attached:
            await self._attach()
        while not self._detached:
            await self._turn()
            self._fault.ended()

    async def _attach(self) -> None:
        # Read as one member of the group only: an id handed out is not asked for again when the group is made anew.
        last = await self._group.attach(self._last)
        if self._last in ("$", "0"):
            self._last = last
        await self._line.open()
        self._client = await self._line.ask("CLIENT", "ID")
        self._attached = True

    async def _turn(self) -> None:
        """Look after the group if it is time, then wait: for entries if somebody asks for them, else for a change."""
        self._changed.clear()
        if self._clock.monotonic() >= min(self._tend_at, self._due_at if self._wanted else math.inf):
            await self._tend()
        wanted = self._wanted
        wait = min(self._tend_at, self._due_at if wanted else math.inf) - self._clock.monotonic()
        if wait <= 0 or self._detached:
            return
        if wanted:
            await self._read(wanted, min(wait, LONGEST_BLOCK))
        else:
            await self._pause(wait)

    @property
    def _wanted(self) -> int:
        """How many entries somebody waits for."""
        return self._prefetch - len(self._held) if self._receiving and not self._buffer else 0

    async def _read(self, limit: int, wait: float) -> None:
        self._blocked_until = self._clock.monotonic() + wait
        try:
            entries = await self._group.read(self._line, limit, wait)
        finally:
            self._blocked_until = -math.inf
        if entries:
            self._last = entries[-1].id.decode()
            self._keep(entries)

    async def _tend(self) -> None:
        now = self._clock.monotonic()
        doubtful = now < self._doubt_until
        entries, due, own = await self._group.tend(self._wanted, doubtful)
        self._tend_at = now + _TEND
        self._due_at = math.inf if due is None else now + due
        self._let_go({entry.id for entry in entries})
        self._keep(entries)
        if doubtful:
            await self._find_lost(own)

    async def _find_lost(self, own: Iterable[bytes]) -> None:
        known = {*self._held.values(), *(entry.id for entry, _ in self._buffer)}
        lost = [id for id in own if id not in known]
        if lost:
            await self._group.retry([(id, 0.0, 0 if id in self._handed else 1) for id in lost])
            self._due_at = self._clock.monotonic()
        self._handed.clear()

    def _let_go(self, ids: set[bytes]) -> None:
        """Entries came again that are held here: nobody extended their lease."""
        for delivery in [delivery for delivery, id in self._held.items() if id in ids]:
            self._unsure[delivery] = self._held.pop(delivery)

    def _keep(self, entries: Iterable[Entry]) -> None:
        now = self._clock.monotonic()
        self._buffer.extend((entry, now) for entry in entries)
        if self._buffer:
            self._news.set()

    def _doubt(self) -> None:
        """The server may have given entries that did not arrive, or hold some that were settled."""
        self._doubt_until = self._clock.monotonic() + _DOUBT
        self._tend_at = -math.inf

    async def _pause(self, seconds: float) -> None:
        timer = self._clock.call_later(seconds, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    async def _interrupt(self) -> None:
        if self._blocked_until > self._clock.monotonic():
            with suppress(ConnectionFailed):  # without the right to do so the wait ends by itself, within a second
                await self._group.interrupt(self._client)

    # for the dispatcher

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        while True:
            if self._closed:
                raise Closed("the consumer was closed")
            deliveries = self._hand_out(max)
            if deliveries:
                return deliveries
            if self._task is None or self._task.done():
                raise Closed("the consumer was detached")
            self._news.clear()
            self._receiving += 1
            self._changed.set()
            try:
                await self._news.wait()
            finally:
                self._receiving -= 1

    def _hand_out(self, limit: int) -> list[Delivery[Any]]:
        assert self.lease is not None
        deliveries: list[Delivery[Any]] = []
        fresh = self._clock.monotonic() - self.lease / 2
        while self._buffer and len(deliveries) < limit:
            entry, since = self._buffer.popleft()
            if since < fresh:  # nobody came for it: it goes back before somebody else claims it
                self._doubt()
                continue
            message, key = _wire.read_entry(entry.fields)
            delivery: Delivery[Any] = Delivery(
                topic=self._topic, message=message, key=key, count=entry.count, native=entry.id.decode()
            )
            self._held[delivery] = entry.id
            deliveries.append(delivery)
        return deliveries

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        id = self._held.get(delivery) or self._unsure.get(delivery)
        if id is None or delivery in self._settling:
            return
        if self._closed:
            raise BackendUnavailable("the consumer was closed and the message went back to its queue")
        self._settling.add(delivery)
        try:
            await self._tell(id, settlement)
        except ConnectionFailed as error:
            if self._held.pop(delivery, None) is not None:
                self._handed.add(id)
            self._unsure[delivery] = id
            self._doubt()
            self._changed.set()
            raise BackendUnavailable(f"the server was not told: {error.detail}", error.address) from error
        finally:
            self._settling.discard(delivery)
        self._held.pop(delivery, None)
        self._unsure.pop(delivery, None)
        self._changed.set()
        if self._due_at < self._blocked_until:
            await self._interrupt()

    async def _tell(self, id: bytes, settlement: Settlement) -> None:
        if isinstance(settlement, Retry):
            await self._group.retry([(id, settlement.delay, 0)])
            self._due_at = min(self._due_at, self._clock.monotonic() + settlement.delay)
        else:
            await self._acks.add(id)

    async def extend(self, delivery: Delivery[Any]) -> None:
        id = self._held.get(delivery)
        if id is None:
            if delivery in self._unsure:
                raise BackendRefused("the message is not held any more")
            return
        try:
            held = await self._extensions.add(id)
        except ConnectionFailed as error:  # a refusal, too: it does not say that the message is lost
            raise BackendUnavailable(f"the server was not told: {error.detail}", error.address) from error
        if not held:
            raise BackendRefused("the message went to another consumer")

    async def detach(self) -> None:
        self._detached = True
        self._changed.set()
        task = self._task
        if task is None:
            return
        try:
            async with asyncio.timeout(self._timeout / 2):
                while not task.done():
                    await self._interrupt()
                    await asyncio.wait({task}, timeout=_POLL)
        except TimeoutError:
            pass
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def aclose(self) -> None:
        async with self._lock:
            if self._closed:
                return
            self._group.hurried = True
            try:
                await self.detach()
                await self._leave()
            finally:
                self._closed = True
                self._unsure.update(self._held)
                self._held.clear()
                self._buffer.clear()
                self._news.set()
                self._closing(self)
                await self._line.aclose()

    async def _leave(self) -> None:
        """Give back what is here. Without a server that is not possible: the lease of each message ends by itself."""
        try:
            async with asyncio.timeout(self._timeout / 2):
                await self._acks.aclose()
                await self._extensions.aclose()
                if self._buffer:
                    await self._group.retry([(entry.id, 0.0, 1) for entry, _ in self._buffer])
                await self._group.leave()
        except (ConnectionFailed, TimeoutError) as error:
            if self._task is not None:  # else whoever wanted to subscribe hears that it failed
                log(self._logger, logging.INFO, "subscription not given up", topic=self._topic, error=repr(error))
        if self._task is not None and not self._task.cancelled() and (failure := self._task.exception()):
            log(self._logger, logging.ERROR, "subscription failed", topic=self._topic, error=repr(failure))
