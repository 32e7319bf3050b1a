"""The in-memory broker: queues between services of one event loop, with the bounds of a server.

The rules, as RabbitMQ, JetStream and Kafka groups have them:

* A named queue exists from its first consumer on, as long as its `MemoryTopics`, and keeps messages while nobody
  consumes it. A consumer without a queue has one of its own that ends with it.
* A message is copied into each queue of its topic; a topic without queues keeps nothing.
* A queue hands messages out in the order of publishing. One that was retried or given back takes its old place among
  those that wait; what was handed out in the meantime is ahead of it, messages of its key too.
* A queue that is full makes publishers wait, first come first served. Nothing is dropped.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec

from pymicro.broker._contract import Broker, Consumer
from pymicro.broker._types import Capability, Delivery, Retry, Settlement
from pymicro.clock import Clock
from pymicro.errors import BackendUnavailable, Closed, InvalidOption
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build
from pymicro.plugins.toolkit import option


class MemoryBrokerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of each queue. Messages count until they are settled."""

    max_messages: Annotated[int, option("Messages in a queue from which on publishers wait.")] = 10_000
    max_bytes: Annotated[int, option("Bytes in a queue from which on publishers wait.", unit="bytes")] = 64 * 1024**2


class _Published:
    """A message as it was published. The queues share it; what is handed out are copies."""

    __slots__ = ("_body", "_fields", "key", "number", "size")

    def __init__(self, message: Message, key: str | None, number: int) -> None:
        self.key = key
        self.number = number
        self.size = message.size
        self._fields = tuple(message.headers.items())
        self._body = bytes(message.body)

    def copy(self) -> Message:
        return Message(Headers(self._fields), self._body)


class _Entry:
    """A published message in one queue."""

    __slots__ = ("count", "published")

    def __init__(self, published: _Published) -> None:
        self.published = published
        self.count = 0


class _Queue:
    """Messages that wait for the consumers of one queue."""

    def __init__(self, options: MemoryBrokerOptions) -> None:
        self._options = options
        self._ready: list[tuple[int, _Entry]] = []
        self._delayed: list[tuple[float, int, _Entry]] = []
        self._messages = 0
        self._bytes = 0
        #: Attached consumers; the one that was served last comes last.
        self.consumers: dict[MemoryConsumer, None] = {}

    def has_room(self, size: int) -> bool:
        # An empty queue takes any message: one over the limit would wait for ever.
        within = self._messages < self._options.max_messages and self._bytes + size <= self._options.max_bytes
        return within or not self._messages

    def add(self, published: _Published) -> None:
        self._messages += 1
        self._bytes += published.size
        heapq.heappush(self._ready, (published.number, _Entry(published)))
        self._wake()

    def take(self, consumer: MemoryConsumer, limit: int, now: float) -> list[_Entry]:
        """Entries in order, at most `limit`; the others that wait are left their share."""
        self.promote(now)
        waiting = sum(other.waiting for other in self.consumers if other is not consumer)
        share = -(-len(self._ready) // (waiting + 1))
        entries = [heapq.heappop(self._ready)[1] for _ in range(min(limit, share))]
        if entries and consumer in self.consumers:
            del self.consumers[consumer]
            self.consumers[consumer] = None
        return entries

    def promote(self, now: float) -> None:
        """Make ready what was delayed until `now`."""
        while self._delayed and self._delayed[0][0] <= now:
            _, number, entry = heapq.heappop(self._delayed)
            heapq.heappush(self._ready, (number, entry))

    def put_back(self, entry: _Entry, due: float) -> None:
        heapq.heappush(self._delayed, (due, entry.published.number, entry))
        self._wake()

    def remove(self, entry: _Entry) -> None:
        self._messages -= 1
        self._bytes -= entry.published.size

    @property
    def next_due(self) -> float | None:
        """When a delayed entry is to be handed out; None for none."""
        return self._delayed[0][0] if self._delayed else None

    def _wake(self) -> None:
        for consumer in self.consumers:
            consumer.wake()


class _Topic:
    """The queues of one topic, and the publishers that wait for room in them."""

    def __init__(self) -> None:
        self.named: dict[str, _Queue] = {}
        self.private: set[_Queue] = set()
        self._publishers: deque[tuple[_Published, asyncio.Future[bool]]] = deque()

    @property
    def unused(self) -> bool:
        return not (self.named or self.private or self._publishers)

    def offer(self, published: _Published) -> asyncio.Future[bool] | None:
        if not self._publishers and self._has_room(published.size):
            self._add(published)
            return None
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._publishers.append((published, admitted))
        return admitted

    def admit(self) -> None:
        """Let waiting publishers go on, as far as there is room."""
        while self._publishers:
            published, admitted = self._publishers[0]
            if not admitted.done():
                if not self._has_room(published.size):
                    return
                self._add(published)
                admitted.set_result(True)
            self._publishers.popleft()

    def _has_room(self, size: int) -> bool:
        return all(queue.has_room(size) for queue in self._queues())

    def _add(self, published: _Published) -> None:
        for queue in self._queues():
            queue.add(published)

    def _queues(self) -> Iterator[_Queue]:
        return itertools.chain(self.named.values(), self.private)


class MemoryTopics:
    """The topics that memory brokers share. Brokers that were given the same one see each other's messages."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}
        self._numbers = itertools.count(1)

    def publish(self, name: str, message: Message, key: str | None) -> asyncio.Future[bool] | None:
        """Put a message into the queues of a topic; a future if they are full, True once the message is in."""
        topic = self._topics.get(name)
        return topic.offer(_Published(message, key, next(self._numbers))) if topic is not None else None

    def attach(self, name: str, queue: str, options: MemoryBrokerOptions) -> _Queue:
        """The queue of this name, which exists from now on, or a private one for an empty name."""
        topic = self._topics.setdefault(name, _Topic())
        found = topic.named.get(queue) or _Queue(options)
        if queue:
            topic.named[queue] = found
        else:
            topic.private.add(found)
        return found

    def detach(self, name: str, queue: _Queue) -> None:
        """Put no more messages into a private queue."""
        topic = self._topics.get(name)
        if topic is not None:
            topic.private.discard(queue)
            self.admit(name)

    def admit(self, name: str) -> None:
        """Let publishers that wait go on, as far as there is room. Forgets a topic that nobody uses."""
        topic = self._topics.get(name)
        if topic is not None:
            topic.admit()
            if topic.unused:
                del self._topics[name]


class MemoryConsumer(Consumer):
    """A consumer that takes from its queue when `receive` asks: no message waits in it, unless its queue is private."""

    def __init__(self, topics: MemoryTopics, topic: str, queue: _Queue, name: str, prefetch: int, clock: Clock) -> None:
        self._topics = topics
        self._topic = topic
        self._queue = queue
        self._named = bool(name)
        self._prefetch = prefetch
        self._clock = clock
        self._unsettled: dict[Delivery[Any], _Entry] = {}
        self._given_back: frozenset[Delivery[Any]] = frozenset()
        self._wakened = asyncio.Event()
        self.closed = False
        self.waiting = False
        queue.consumers[self] = None

    @property
    def attached(self) -> bool:
        return self in self._queue.consumers

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        while True:
            if self.closed:
                raise Closed("the consumer was closed")
            limit = min(max, self._prefetch - len(self._unsettled))
            if limit > 0 and (self.attached or not self._named):
                entries = self._queue.take(self, limit, self._clock.monotonic())
                if entries:
                    return [self._hand_out(entry) for entry in entries]
            if not self.attached and (self._named or limit > 0):
                raise Closed("the consumer was detached")
            await self._wait(limit)

    def _hand_out(self, entry: _Entry) -> Delivery[Any]:
        entry.count += 1
        published = entry.published
        delivery: Delivery[Any] = Delivery(
            topic=self._topic, message=published.copy(), key=published.key, count=entry.count, native=None
        )
        self._unsettled[delivery] = entry
        return delivery

    async def _wait(self, limit: int) -> None:
        self._wakened.clear()
        due = self._queue.next_due
        timer = None
        if due is not None and limit > 0:
            timer = self._clock.call_later(due - self._clock.monotonic(), self._promote, due)
        self.waiting = limit > 0
        try:
            await self._wakened.wait()
        finally:
            self.waiting = False
            if timer is not None:
                timer.cancel()

    def _promote(self, due: float) -> None:
        self._queue.promote(due)  # whatever the clock says: it may round, and be a little early
        self.wake()

    def wake(self) -> None:
        """Look for messages again."""
        self._wakened.set()

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        entry = self._unsettled.pop(delivery, None)
        if entry is None:
            if delivery in self._given_back:
                raise BackendUnavailable("the consumer was closed and the message went back to its queue")
            return
        if isinstance(settlement, Retry):
            self._queue.put_back(entry, self._clock.monotonic() + settlement.delay)
        else:
            self._queue.remove(entry)
            self._topics.admit(self._topic)
        self.wake()

    async def extend(self, delivery: Delivery[Any]) -> None:
        """Nothing to do: a delivery is held for as long as the consumer lives."""

    async def detach(self) -> None:
        if self.attached:
            del self._queue.consumers[self]
            if not self._named:
                self._topics.detach(self._topic, self._queue)
            self.wake()

    async def aclose(self) -> None:
        await self.detach()
        self.closed = True
        self._given_back |= self._unsettled.keys()
        for entry in self._unsettled.values():
            self._queue.put_back(entry, self._clock.monotonic())
        self._unsettled.clear()
        self.wake()


class MemoryBroker(Broker):
    """Topics within one event loop. What it holds is lost when the process ends, so `AT_LEAST_ONCE` is not declared.

    Args:
        options: bounds of each queue.
        build: clock and limits.
        topics: topics to share with other memory brokers; None for its own.
    """

    name = "memory"
    capabilities = frozenset({Capability.ORDERED, Capability.QUEUES, Capability.REDELIVERY, Capability.DELAY})

    def __init__(
        self,
        options: MemoryBrokerOptions | None = None,
        build: Build | None = None,
        *,
        topics: MemoryTopics | None = None,
    ) -> None:
        self._options = options or MemoryBrokerOptions()
        self._build = build or Build()
        self._topics = topics if topics is not None else MemoryTopics()
        self._consumers: list[MemoryConsumer] = []
        self._publishing: set[asyncio.Future[bool]] = set()

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        self.require_open()
        self._build.limits.check(message)
        admitted = self._topics.publish(topic, message, key)
        if admitted is None:
            return
        self._publishing.add(admitted)
        timer = self._build.clock.call_later(timeout, _refuse, admitted)
        try:
            if not await admitted:
                raise BackendUnavailable(f"no room in the queues of topic {topic!r} within {timeout} seconds")
        finally:
            timer.cancel()
            self._publishing.discard(admitted)
            self._topics.admit(topic)

    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        self.require_open()
        if native is not None:
            raise InvalidOption(f"the memory broker has no subscription options, so {native!r} is of another broker")
        if prefetch < 1:
            raise InvalidOption(f"prefetch must be at least 1, not {prefetch}")
        self._consumers = [consumer for consumer in self._consumers if not consumer.closed]
        found = self._topics.attach(topic, queue, self._options)
        consumer = MemoryConsumer(self._topics, topic, found, queue, prefetch, self._build.clock)
        self._consumers.append(consumer)
        return consumer

    async def _close(self) -> None:
        for admitted in self._publishing:
            _refuse(admitted)
        for consumer in self._consumers:
            await consumer.aclose()


def _refuse(admitted: asyncio.Future[bool]) -> None:
    if not admitted.done():
        admitted.set_result(False)
