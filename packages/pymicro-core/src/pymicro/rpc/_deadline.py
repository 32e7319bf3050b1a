"""A time limit for the running task, cheaper than `asyncio.timeout`, on an injected clock."""

from __future__ import annotations

import asyncio

from pymicro.clock import Clock, TimerHandle


class Interrupt:
    """Cancels the task that made it, and remembers why.

    Use: make it in the task, `start` it, run the work; on `CancelledError` ask `caught` whether it was this one. Always
    `stop` it.

    Attributes:
        deadline: when it fires, on the clock it was started with; None while it was not started.
        reason: why it fired; empty while it did not.
    """

    __slots__ = ("_task", "_timer", "deadline", "reason")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # coroutines of asyncio always run in a task
        self._task: asyncio.Task[object] | None = task
        self._timer: TimerHandle | None = None
        self.deadline: float | None = None
        self.reason = ""

    def start(self, clock: Clock, seconds: float) -> None:
        """Interrupt for `"deadline"` after `seconds`."""
        self.deadline = clock.monotonic() + seconds
        self._timer = clock.call_later(seconds, self.fire, "deadline")

    def fire(self, reason: str) -> None:
        """Cancel the task, unless it was interrupted or stopped before."""
        if self._task is not None and not self.reason:
            self.reason = reason
            self._task.cancel()

    def caught(self) -> bool:
        """Whether the `CancelledError` at hand came from here alone; it is then used up.

        False when somebody else cancelled the task as well: that cancellation must go on.
        """
        return bool(self.reason) and self._task is not None and self._task.uncancel() == 0

    def cancelled_from_outside(self) -> bool:
        """Whether anybody else asked the task to end."""
        return self._task is not None and self._task.cancelling() > 0

    def stop(self) -> None:
        """Never fire again."""
        self._task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
