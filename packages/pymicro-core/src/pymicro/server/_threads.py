"""Worker threads for plain `def` handlers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """A bounded number of threads. A call whose caller gave up keeps its thread, and its place, until it returns.

    They are daemons: one that never returns does not keep the program from ending, as those of
    `concurrent.futures` would.

    Args:
        size: how many threads there are at most.
    """

    def __init__(self, size: int) -> None:
        self._free = asyncio.Semaphore(size)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._busy = 0
        self._started = 0
        self._closings: set[asyncio.Task[None]] = set()

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run `function(*arguments)` in a thread, in a copy of the present context. Cancellation leaves it running."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        done.add_done_callback(self._release)
        self._busy += 1
        self._jobs.put(partial(_work, loop, done, copy_context(), function, arguments))
        if self._busy > self._started:
            self._started += 1
            threading.Thread(target=_serve, args=(self._jobs,), name=f"pymicro_{self._started}", daemon=True).start()
        return await asyncio.shield(done)

    def _release(self, work: asyncio.Future[T]) -> None:
        self._busy -= 1
        self._free.release()
        if not work.cancelled():
            work.exception()  # nobody may be waiting for it any more

    def after(self, step: asyncio.Task[Any], function: Callable[[], object]) -> asyncio.Task[None]:
        """Run `function()` in a thread when `step` has ended. Nobody has to wait for it."""
        task = asyncio.create_task(self._after(step, function))
        self._closings.add(task)
        task.add_done_callback(self._closed)
        return task

    async def _after(self, step: asyncio.Task[Any], function: Callable[[], object]) -> None:
        await asyncio.gather(step, return_exceptions=True)
        await self.run(function)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closings.discard(task)
        if not task.cancelled():
            task.exception()

    async def aclose(self) -> None:
        """Take no more work; threads end when what they run returns."""
        for task in self._closings:
            task.cancel()
        if self._closings:
            await asyncio.wait(self._closings)
        for _ in range(self._started):
            self._jobs.put(None)


def _serve(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()


def _work(
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[Any],
    context: Context,
    function: Callable[..., Any],
    arguments: tuple[object, ...],
) -> None:
    result: Any = None
    failure: BaseException | None = None
    try:
        result = context.run(function, *arguments)
    except StopIteration as error:  # a future cannot hold it
        failure = RuntimeError("the function raised StopIteration")
        failure.__cause__ = error
    except BaseException as error:
        failure = error
    with suppress(RuntimeError):  # the loop was closed: nobody waits any more
        loop.call_soon_threadsafe(_settle, done, result, failure)


def _settle(done: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if done.done():
        return
    if failure is not None:
        done.set_exception(failure)
    else:
        done.set_result(result)
