"""Waiting on the injected clock."""

from __future__ import annotations

import asyncio

from pymicro.clock import Clock


async def wait(clock: Clock, event: asyncio.Event, seconds: float) -> None:
    """Until `event` is set, at most `seconds`. The event is set afterwards in either case."""
    timer = clock.call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
