"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Callable
from typing import Any, Final

#: How often `settle` lets the loop turn: more than the longest chain of tasks that wake each other in one call.
_TURNS: Final = 50


async def settle() -> None:
    """Let every task that can run get to its next wait.

    The loop turns a fixed number of times. That is enough for tasks that wait for each other; what waits for a
    socket, a thread or real time may still be waiting.
    """
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class _Timer:
    __slots__ = ("_args", "_callback", "_context", "cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._callback = callback
        self._args = args
        self._context = contextvars.copy_context()
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        asyncio.get_running_loop().call_soon(self._callback, *self._args, context=self._context)


class ManualClock:
    """A `pymicro.clock.Clock` whose time passes only in `advance`.

    Give it to components as `Build(clock=...)`: time-outs, leases and back-off of hours then take milliseconds, and a
    test says exactly what happened before and after each moment.

    Args:
        start: what `time` says at first, seconds since the epoch. `monotonic` starts at 0.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self._now = 0.0
        self._numbers = itertools.count()
        self._timers: list[tuple[float, int, _Timer]] = []

    def time(self) -> float:
        """Wall clock, seconds since the epoch."""
        return self._start + self._now

    def monotonic(self) -> float:
        """Seconds that the clock was advanced so far."""
        return self._now

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> _Timer:
        """Call `callback(*args)` in the running loop once the clock was advanced by `seconds`."""
        timer = _Timer(callback, args)
        heapq.heappush(self._timers, (self._after(seconds), next(self._numbers), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by `seconds`; 0 or less only lets other tasks run."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, 0 or more.

        Whatever falls due fires in the order of its time, and before the clock moves on, every task that was woken
        runs to its next wait (see `settle`); timers that those tasks set fire too when they are due in time.

        Raises:
            ValueError: time does not run backwards.
        """
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds} seconds")
        end = self._after(seconds)
        await settle()
        while (due := self._next_due(end)) is not None:
            self._now = due
            self._fire()
            await settle()
        self._now = end

    @property
    def pending(self) -> int:
        """How many timers and sleepers wait for this clock."""
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def _after(self, seconds: float) -> float:
        # Whole nanoseconds, so that ten steps of 0.1 make 1.
        return round(self._now + max(seconds, 0.0), 9)

    def _next_due(self, end: float) -> float | None:
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers and self._timers[0][0] <= end else None

    def _fire(self) -> None:
        _, _, timer = heapq.heappop(self._timers)
        timer.fire()


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
