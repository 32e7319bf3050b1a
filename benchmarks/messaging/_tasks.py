"""What the modules share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from messaging import PREFETCH


class Beside:
    """Runs handlers beside each other, `PREFETCH` at a time, for libraries that call one after the other."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(PREFETCH)
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, handling: Coroutine[Any, Any, None]) -> None:
        """Returns when there was a slot for it."""
        await self._slots.acquire()
        task = asyncio.create_task(handling)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let it run meanwhile. An error of it ends the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        yield
        task.cancel()
