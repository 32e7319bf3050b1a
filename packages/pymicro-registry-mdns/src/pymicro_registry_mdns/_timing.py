"""Waiting on the injected clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from pymicro.clock import Clock

_TICK: Final = 1e-6  # clocks round, so a timer may fire a moment early


async def wait_until(clock: Clock, due: Callable[[], float], look: asyncio.Event) -> None:
    """Wait until the clock says what `due` returns, in seconds. When that changes, set `look`."""
    while (left := due() - clock.monotonic()) > _TICK:
        look.clear()
        timer = clock.call_later(left, look.set)
        try:
            await look.wait()
        finally:
            timer.cancel()
