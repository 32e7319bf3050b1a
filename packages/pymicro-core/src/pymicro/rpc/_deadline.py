"""Time limits for the running task, cheaper than `asyncio.timeout`, on an injected clock."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any, Final

import msgspec

from pymicro.clock import Clock, TimerHandle

#: Shared timers a second.
_A_SECOND: Final = 20
_EXACT: Final = 1.0
_SHARED: Final = 60.0


class Interrupt(msgspec.Struct, eq=False):
    """Cancels a task, and remembers why.

    Use: make one with `of` in the task, let `Deadlines.start` it, run the work; on `CancelledError` ask
    `caught` whether it was this one. Always `stop` it.

    Attributes:
        deadline: when it fires, on the clock it was started with; None while it was not started.
        reason: why it fired; empty while it did not.
    """

    _task: asyncio.Task[Any] | None
    _before: int
    deadline: float | None = None
    reason: str = ""
    _used: bool = False
    _timer: TimerHandle | None = None
    _bucket: set[Interrupt] | None = None

    @classmethod
    def of(cls, task: asyncio.Task[Any] | None = None) -> Interrupt:
        """For the running task, which a caller that knows it passes on."""
        task = task or asyncio.current_task()
        # a task that was cancelled before may still work in its `finally`: that cancellation is not ours to count
        return Interrupt(task, task.cancelling() if task is not None else 0)

    def fire(self, reason: str) -> None:
        """Cancel the task, unless it was interrupted or stopped before."""
        if self._task is not None and not self.reason:
            self.reason = reason
            self._task.cancel()

    def caught(self) -> bool:
        """Whether the `CancelledError` at hand came from here alone; it is then used up.

        False when somebody else cancelled the task as well: that cancellation must go on.
        """
        if not self.reason or self._task is None:
            return False
        self._used = True
        return self._task.uncancel() <= self._before

    def cancelled_from_outside(self) -> bool:
        """Whether anybody else asked the task to end."""
        return self._task is not None and self._task.cancelling() > self._before

    def stop(self) -> None:
        """Never fire again. What it did, and the work swallowed or turned into another error, is taken back."""
        if self.reason and not self._used and self._task is not None:
            self._task.uncancel()
        self._task = None
        if self._bucket is not None:
            self._bucket.discard(self)
        elif self._timer is not None:
            self._timer.cancel()


class Deadlines:
    """The deadlines of everything in flight.

    A timer of the event loop for each call costs as much as several other steps of the call together. Deadlines of a
    second and more therefore share one timer for each 50 ms, and pass at most that late; shorter ones are exact. So
    are those of more than a minute: a shared timer outlives its calls, and callers could make any number of them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._monotonic = clock.monotonic
        self._buckets: dict[int, set[Interrupt]] = {}
        self._timers: dict[int, TimerHandle] = {}
        self._sweep_at = 0.0

    def start(self, interrupt: Interrupt, seconds: float) -> None:
        """Interrupt for `"deadline"` after `seconds`."""
        deadline = interrupt.deadline = self._monotonic() + seconds
        if not _EXACT <= seconds <= _SHARED:
            interrupt._timer = self._clock.call_later(max(seconds, 0.0), interrupt.fire, "deadline")
            return
        number = int(deadline * _A_SECOND) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._new_bucket(number)
        bucket.add(interrupt)
        interrupt._bucket = bucket

    def _new_bucket(self, number: int) -> set[Interrupt]:
        """The deadlines between two shared timers, and the timer that ends them."""
        self._sweep()
        bucket = self._buckets[number] = set[Interrupt]()
        wait = number / _A_SECOND - self._monotonic()
        # in a context of its own: the timer outlives this call, whose context would keep its request alive
        self._timers[number] = Context().run(self._clock.call_later, wait, self._expire, number)
        return bucket

    def _sweep(self) -> None:
        """Drop timers whose calls have all ended, now and then: left alone, each would hold memory until it fires."""
        now = self._monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + 1 / _A_SECOND
        for number in [number for number, bucket in self._buckets.items() if not bucket]:
            del self._buckets[number]
            self._timers.pop(number).cancel()

    def _expire(self, number: int) -> None:
        del self._timers[number]
        for interrupt in [*self._buckets.pop(number)]:
            interrupt.fire("deadline")

    def close(self) -> None:
        """Drop every timer."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._buckets.clear()
