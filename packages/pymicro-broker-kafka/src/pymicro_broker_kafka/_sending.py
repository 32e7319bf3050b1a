"""Between the event loop that publishes and the driver's thread that sends: few words, each for many records.

Each change of thread waits for the interpreter's lock, and costs more than a record does.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pymicro_broker_kafka._driver import KafkaNetClient


class GatheringClient(KafkaNetClient):  # type: ignore[misc]  # the driver has no types
    """Its thread is woken once for all that one turn of the event loop publishes, not to send the first record alone.

    Args:
        loop: the event loop.
        config: the driver's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, **config: Any) -> None:
        super().__init__(**config)
        self._loop = loop
        self._waking = False

    def wakeup(self) -> None:
        """The driver's hook: there is something to send."""
        if asyncio._get_running_loop() is not self._loop:
            super().wakeup()
        elif not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = False
        super().wakeup()


class Sent:
    """A record that the driver has.

    Attributes:
        size: bytes that it takes.
        known: whether it is known what became of it.
        error: the driver's, if it failed.
        waiter: where somebody waits for that.
        due: until when, by the loop's time.
    """

    __slots__ = ("due", "error", "known", "size", "waiter")

    def __init__(self, size: int) -> None:
        self.size = size
        self.known = False
        self.error: Exception | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.due = math.inf

    def wake(self) -> None:
        """End the waiting."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Answers:
    """What the driver's thread learns of records, for the event loop.

    Args:
        loop: the event loop.
        brought: called there for each record, when it is known what became of it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, brought: Callable[[Sent], None]) -> None:
        self._loop = loop
        self._brought = brought
        self._learned: deque[tuple[Sent, Exception | None]] = deque()
        self._coming = False
        self._awaited: set[Sent] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf  # when it is over

    def follow(self, future: Any, size: int) -> Sent:
        """A record of so many bytes, by the driver's future for it."""
        sent = Sent(size)
        future.add_callback(lambda _: self._learn(sent, None))
        future.add_errback(lambda error: self._learn(sent, error))
        return sent

    def _learn(self, sent: Sent, error: Exception | None) -> None:
        self._learned.append((sent, error))
        if not self._coming:
            self._coming = True
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._bring)

    def _bring(self) -> None:
        self._coming = False  # first: what the thread learns from here on may come too late for this turn
        while self._learned:
            sent, error = self._learned.popleft()
            sent.known, sent.error = True, error
            sent.wake()
            self._brought(sent)

    async def wait(self, sent: Sent, due: float) -> bool:
        """Whether it is known what became of a record, at the latest at `due`, by the loop's time."""
        if not sent.known:
            waiter = sent.waiter = self._loop.create_future()
            sent.due = due
            self._awaited.add(sent)
            if due < self._next:
                self._watch(due)
            try:
                await waiter
            finally:
                self._awaited.discard(sent)
        return sent.known

    def _watch(self, due: float) -> None:
        """Have one timer for all: one for each costs as much as all the rest of waiting, and hardly any is needed."""
        if self._timer is not None:
            self._timer.cancel()
        self._next = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer, self._next = None, math.inf
        now = self._loop.time()
        for sent in self._awaited:
            if sent.due <= now:
                sent.wake()
        soonest = min((sent.due for sent in self._awaited if sent.due > now), default=math.inf)
        if soonest < math.inf:
            self._watch(soonest)
