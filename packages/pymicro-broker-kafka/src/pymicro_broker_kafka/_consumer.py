"""A subscription: what both kinds share, and one without a queue."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from pymicro.broker import Consumer, Delivery, Retry, Settlement
from pymicro.errors import BackendRefused, BackendUnavailable, Closed
from pymicro.message import Message
from pymicro.plugins import Build
from pymicro.plugins.toolkit import log
from pymicro_broker_kafka import _wire
from pymicro_broker_kafka._client import Settings
from pymicro_broker_kafka._errors import mapped
from pymicro_broker_kafka._everything import Everything
from pymicro_broker_kafka._polled import Polled
from pymicro_broker_kafka._progress import Progress

_END: Final = 4.0  # seconds for the thread to end; it finishes joining, and says good-bye


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription is made of.

    Attributes:
        settings: how to reach the servers.
        build: logger, limits, time-out.
        topic, queue, prefetch: as in `Broker.consume`.
        kept: whether to begin with what the topic has.
        closing: called once, when the consumer closed.
        reconnected: called when a connection came back: the server may have lost the topic.
    """

    settings: Settings
    build: Build
    topic: str
    queue: str
    prefetch: int
    kept: bool
    closing: Callable[[Any], None]
    reconnected: Callable[[str], None]


class Held(msgspec.Struct, gc=False, eq=False):
    """A record, the message and the key in it, and the partition's state at the time it was handed out."""

    record: Any
    found: tuple[Message, str | None] | None
    progress: Progress
    count: int = 1


class KafkaConsumer(Consumer):
    """All partitions of a topic, for this subscription alone. Nothing is committed: it ends with its process.

    Args:
        source: what it is made of.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._partitions: dict[Any, Progress] = {}
        self._waiting: deque[Held] = deque()  # came, and nobody was told of them
        self._again: deque[Held] = deque()  # to be handed out once more
        self._here: deque[Held] = deque()  # may be handed out now
        self._held: dict[Delivery[Any], Held] = {}
        self._news = asyncio.Event()
        self._connected = False
        self._faulty = False
        self._problem: Exception | None = None
        self._detached = False
        self._closed = False
        self._lock = asyncio.Lock()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._ended = asyncio.Event()
        self._polled = self._make()

    def _make(self) -> Polled:
        return Everything(self.source.settings, self.source.topic, self.source.kept, self)

    async def start(self) -> None:
        """Attach, and stay so.

        Raises:
            BackendUnavailable, BackendRefused: as `Broker.consume`.
        """
        self._polled.grant(self.source.prefetch)
        self._polled.start()
        timeout = self._patience
        try:
            async with asyncio.timeout(timeout):
                await self._ready
        except TimeoutError as error:
            why = f": {self._problem}" if self._problem else ""
            raise BackendUnavailable(
                f"not attached within {timeout:.3g} s{why}", self.source.settings.address
            ) from error

    @property
    def _patience(self) -> float:
        """Seconds to attach."""
        return self.source.build.timeout

    @property
    def attached(self) -> bool:
        return self._connected and not self._detached and self._ready.done() and not self._ended.is_set()

    # from the thread

    def on_assigned(self, kept: set[Any], new: dict[Any, Progress]) -> None:
        self._partitions = {tp: progress for tp, progress in self._partitions.items() if tp in kept} | new
        mine = {id(progress) for progress in self._partitions.values()}
        for records in (self._waiting, self._again, self._here):
            left = [each for each in records if id(each.progress) in mine]
            if records is self._waiting:
                self._polled.grant(len(records) - len(left))
            records.clear()
            records.extend(left)
        for delivery in [one for one, held in self._held.items() if id(held.progress) not in mine]:
            del self._held[delivery]  # it is with another consumer, or will be
        self._changed()

    def on_release(self, partitions: set[Any]) -> None:
        pass

    def read(self, record: Any) -> tuple[Message, str | None] | None:
        return _wire.read(record, self.source.topic, self.source.build.limits)

    def on_records(self, partition: Any, records: list[tuple[Any, Any]]) -> None:
        dropped = 0
        progress = self._partitions.get(partition)
        for record, found in records:
            if progress is None or self._detached or not progress.arrived(record.offset):
                dropped += 1
            else:
                self._waiting.append(Held(record, found, progress))
        if dropped:
            self._polled.grant(dropped)
        self._changed()

    def on_connected(self, connected: bool) -> None:
        again = connected and not self._connected and self._ready.done()
        self._connected = connected
        if again:
            self.source.reconnected(self.source.topic)
        if again and self._faulty:
            self._faulty = False
            self._log(logging.INFO, "subscription works again")
        elif not connected and self._ready.done() and not self._closed:
            self._fault("no connection")

    def on_error(self, error: BaseException) -> None:
        problem = self._problem = mapped(error, self.source.settings.address)
        if not self._ready.done() and (isinstance(problem, BackendRefused) or not self._polled.made):
            problem.__cause__ = error
            self._ready.set_exception(problem)
        elif self._ready.done() and not self._closed:
            self._fault(str(problem))

    def on_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def on_ended(self) -> None:
        self._ended.set()
        self._connected = False
        if not self._ready.done():
            self._ready.cancel() if self._closed else self._ready.set_exception(BackendUnavailable("it ended"))
        self._news.set()

    def _fault(self, problem: str) -> None:
        if not self._faulty:
            self._faulty = True
            self._log(logging.WARNING, "subscription interrupted", error=problem)

    def _log(self, level: int, event: str, **fields: Any) -> None:
        log(self.source.build.logger, level, event, topic=self.source.topic, queue=self.source.queue, **fields)

    def _changed(self) -> None:
        self._news.set()

    # handing out

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        while True:
            if self._closed:
                raise Closed("the consumer was closed")
            if self._detached:
                raise Closed("the consumer was detached")
            limit = min(max, self.source.prefetch - len(self._held))
            if limit > len(self._here):
                self._want(limit - len(self._here))
            deliveries = [*self._hand_out(limit)]
            if deliveries:
                return deliveries
            self._news.clear()
            await self._news.wait()

    def _want(self, number: int) -> None:
        """Make so many records ready to be handed out, if they came."""
        for held in self._take(number):
            held.count = held.progress.claim(held.record.offset)
            self._here.append(held)

    def _take(self, number: int) -> list[Held]:
        taken = [self._again.popleft() for _ in range(min(number, len(self._again)))]
        fresh = [self._waiting.popleft() for _ in range(min(number - len(taken), len(self._waiting)))]
        self._polled.grant(len(fresh))
        return taken + fresh

    def _hand_out(self, limit: int) -> Iterable[Delivery[Any]]:
        while self._here and limit > 0:
            held = self._here.popleft()
            delivery = self._delivery(held)
            if delivery is not None:
                self._held[delivery] = held
                limit -= 1
                yield delivery

    def _delivery(self, held: Held) -> Delivery[Any] | None:
        record = held.record
        if held.found is None:
            self._log(logging.ERROR, "message over the limit dropped", size=len(record.value or b""))
            self._settled(held)
            return None
        message, key = held.found
        # `Delivery[Any]()` would try to note its parameter in each one, in vain.
        return Delivery(topic=self.source.topic, message=message, key=key, count=held.count, native=record)

    # settling

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        held = self._held.pop(delivery, None)
        if held is None:
            return
        if isinstance(settlement, Retry):
            held.progress.release(held.record.offset)
            self._again.append(held)
        else:
            self._settled(held)
        self._changed()

    def _settled(self, held: Held) -> None:
        held.progress.settle(held.record.offset)

    async def extend(self, delivery: Delivery[Any]) -> None:
        pass

    # leaving

    async def detach(self) -> None:
        self._detached = True
        self._waiting.clear()
        self._news.set()
        self._polled.stop()
        await self._wait_for_the_end()

    async def _wait_for_the_end(self) -> None:
        try:
            async with asyncio.timeout(_END):
                await self._ended.wait()
        except TimeoutError:
            self._log(logging.WARNING, "subscription ends late")

    async def aclose(self) -> None:
        async with self._lock:
            if self._closed:
                return
            self._closed = True
            self._news.set()
            try:
                await self._leave()
            finally:
                self._polled.stop()
                if not self._ready.done():
                    self._ready.cancel()
                for records in (self._waiting, self._again, self._here):
                    records.clear()
                self._held.clear()
                self.source.closing(self)

    async def _leave(self) -> None:
        self._detached = True
        self._polled.stop()
        if self._polled.started:
            await self._wait_for_the_end()
