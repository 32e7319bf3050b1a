"""Time, so that tests can replace it."""

from __future__ import annotations

import asyncio
import time as _time
from collections.abc import Callable
from typing import Any, Protocol


class TimerHandle(Protocol):
    """A scheduled call that can be cancelled."""

    def cancel(self) -> None:
        """Do not make the call; harmless when it was made."""


class Clock(Protocol):
    """Everything that pymicro knows of time. All durations are seconds."""

    def time(self) -> float:
        """Wall clock, seconds since the epoch."""

    def monotonic(self) -> float:
        """A clock that never goes back; only differences mean anything."""

    async def sleep(self, seconds: float, /) -> None:
        """Wait; cancellation ends the wait."""

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> TimerHandle:
        """Call `callback(*args)` in the running loop after `seconds`."""


class SystemClock:
    """The machine's own time."""

    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)
    sleep = staticmethod(asyncio.sleep)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> TimerHandle:
        """See `Clock.call_later`."""
        return asyncio.get_running_loop().call_later(seconds, callback, *args)
