"""Events without pause over one broker, and a ledger of what it took and what handlers got."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

import msgspec

from pymicro import Service
from pymicro.broker import RetryPolicy
from pymicro.errors import BackendUnavailable

PUBLISHERS = 4

#: Seconds for one event; then the publisher does not know whether it was taken, and goes on with another.
TIMEOUT = 5.0


class Event(msgspec.Struct):
    """An event that shows whether it arrived as it was sent."""

    id: str
    digest: str
    padding: str

    @classmethod
    def new(cls, size: int) -> Event:
        """One with so many bytes of padding."""
        padding = uuid.uuid4().hex * (size // 32)
        return cls(uuid.uuid4().hex, hashlib.sha256(padding.encode()).hexdigest(), padding)

    @property
    def sound(self) -> bool:
        """Whether nothing in it changed."""
        return self.digest == hashlib.sha256(self.padding.encode()).hexdigest()


class Ledger:
    """Four publishers that never rest, and two subscribers of one queue. Enter it; leaving it stops all of them.

    Args:
        size: bytes of each event's padding.
        options: the broker, its address and its options, as keywords of `Service`.

    Attributes:
        taken: ids of events that the broker took.
        handled: how often each event reached a handler.
        broken: ids of events that changed on their way.
        refused: how often publishing failed.
    """

    def __init__(self, size: int = 64, **options: Any) -> None:
        self.taken: set[str] = set()
        self.handled: Counter[str] = Counter()
        self.broken: list[str] = []
        self.refused = 0
        self._topic = f"ledger-{uuid.uuid4().hex}"
        self._size = size
        self._options: Mapping[str, Any] = {"registry": "memory", "transport": "memory", **options}
        self._news = asyncio.Event()
        self._publishing: list[asyncio.Task[None]] = []
        self._services = AsyncExitStack()

    async def __aenter__(self) -> Self:
        policy = RetryPolicy(max_deliveries=1000)  # an event that every kill interrupts is no poison
        async with AsyncExitStack() as stack:
            for number in range(2):
                worker = Service(f"worker-{number}", environ={}, **self._options)
                worker.subscribe(self._topic, self._handle, queue="workers", retry=policy)
                await stack.enter_async_context(worker)
            publisher = await stack.enter_async_context(Service("publisher", environ={}, **self._options))
            self._publishing = [asyncio.create_task(self._publish(publisher)) for _ in range(PUBLISHERS)]
            stack.push_async_callback(self.rest)
            self._services = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._services.aclose()

    @property
    def lost(self) -> set[str]:
        """What was taken and did not reach a handler yet."""
        return self.taken - self.handled.keys()

    @property
    def doubled(self) -> int:
        """How many deliveries were not the first of their event."""
        return self.handled.total() - len(self.handled)

    async def grows(self, number: int, seconds: float) -> float:
        """Wait until so many more events were taken, and some handled; gives the seconds that it took."""
        began, taken, handled = time.monotonic(), len(self.taken), self.handled.total()
        async with asyncio.timeout(seconds):
            while len(self.taken) < taken + number or self.handled.total() == handled:
                await self._next()
        return time.monotonic() - began

    async def settled(self, seconds: float) -> None:
        """Publish no more, and wait until everything that was taken reached a handler."""
        await self.rest()
        async with asyncio.timeout(seconds):
            while self.lost:
                await self._next()

    async def rest(self) -> None:
        """Publish no more."""
        for task in self._publishing:
            task.cancel()
        await asyncio.gather(*self._publishing, return_exceptions=True)

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _publish(self, service: Service) -> None:
        while True:
            event = Event.new(self._size)
            try:
                await service.publish(self._topic, event, timeout=TIMEOUT)
            except BackendUnavailable:
                self.refused += 1
                await asyncio.sleep(0.01)
            else:
                self.taken.add(event.id)
                self._news.set()

    async def _handle(self, event: Event) -> None:
        self.handled[event.id] += 1
        if not event.sound:
            self.broken.append(event.id)
        self._news.set()
