"""Running a service in an event loop of its own."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Startable(Protocol):
    """What is run."""

    async def start(self) -> None:
        """Open."""

    async def stop(self) -> None:
        """Drain and close."""


def runner() -> asyncio.Runner:
    """A runner on uvloop when it is installed, else on the standard loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def run_until_signalled(
    service: Startable, main: Callable[[], Awaitable[Any]] | None, stop: asyncio.Event
) -> None:
    """Start, run `main` or wait, and stop.

    The first SIGINT or SIGTERM (or `stop`) ends `main` and drains the service; the second cuts the draining off.
    """
    closing: asyncio.Task[None] | None = None

    def signalled() -> None:
        if stop.is_set() and closing is not None:
            closing.cancel()
        stop.set()

    with _signals(signalled):
        await service.start()
        try:
            await _main_or_stop(main, stop)
        finally:
            closing = asyncio.create_task(service.stop())
            await asyncio.wait([closing])
        if not closing.cancelled():
            closing.result()


async def _main_or_stop(main: Callable[[], Awaitable[Any]] | None, stop: asyncio.Event) -> None:
    if main is None:
        await stop.wait()
        return
    work = asyncio.ensure_future(main())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait([work])
    if not work.cancelled():
        work.result()


@contextmanager
def _signals(callback: Callable[[], None]) -> Iterator[None]:
    """Route SIGINT and SIGTERM to `callback`. In other threads than the main one, signals are not ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        try:
            loop.add_signal_handler(number, callback)
        except NotImplementedError:  # Windows' loops
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
