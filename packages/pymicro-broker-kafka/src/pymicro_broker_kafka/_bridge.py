"""Where the driver's threads and the event loop meet.

What blocks runs in the loop's default executor; only a consumer has a thread that polls it, see `_polled`. What the
driver calls back on threads of its own becomes a future of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *args: Any, undo: Callable[[T], None] | None = None) -> T:
    """What a blocking function returns. If the caller is cancelled it runs to its end, and then `undo` does."""
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(lambda ended: _undo(loop, ended, undo))
        raise


def _undo(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[Any], undo: Callable[[Any], None] | None) -> None:
    if not ended.cancelled() and ended.exception() is None and undo is not None:
        _ = loop.run_in_executor(None, undo, ended.result())


def future_of(driver: Any) -> asyncio.Future[Any]:
    """A future of the running loop for one of the driver's."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def tell(set_it: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_resolve, future, set_it, value)

    driver.add_callback(lambda value: tell(future.set_result, value))
    driver.add_errback(lambda error: tell(future.set_exception, error))
    return future


def _resolve(future: asyncio.Future[Any], set_it: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        set_it(value)
