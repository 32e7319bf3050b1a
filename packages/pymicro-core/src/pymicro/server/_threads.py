"""Worker threads for plain `def` handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """A bounded number of threads. A call whose caller gave up keeps its thread, and its place, until it returns.

    Args:
        size: how many threads there are at most.
    """

    def __init__(self, size: int) -> None:
        self._executor = ThreadPoolExecutor(size, thread_name_prefix="pymicro")
        self._free = asyncio.Semaphore(size)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run `function(*arguments)` in a thread, in a copy of the present context. Cancellation leaves it running."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._executor, copy_context().run, function, *arguments)
        work.add_done_callback(self._release)
        return await asyncio.shield(work)

    def _release(self, work: asyncio.Future[T]) -> None:
        self._free.release()
        if not work.cancelled():
            work.exception()  # nobody may be waiting for it any more

    def close(self) -> None:
        """Take no more work; threads end when what they run returns."""
        self._executor.shutdown(wait=False, cancel_futures=True)
