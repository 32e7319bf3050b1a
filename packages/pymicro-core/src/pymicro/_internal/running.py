"""Running a service in an event loop of its own."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
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
    service: Startable,
    main: Callable[[], Awaitable[Any]] | None,
    stop: asyncio.Event,
    others: Mapping[signal.Signals, Callable[[], None]] | None = None,
) -> bool:
    """Start, run `main` or wait, and stop. Whether it came to its own end.

    The first SIGINT or SIGTERM (or `stop`) ends the start or `main`, and drains the service; the second cuts off what
    still runs of `main`, and the draining. `others` are handlers of further signals, or of these in place of that.
    """
    step: asyncio.Future[Any] | None = None
    cut = False

    def signalled() -> None:
        nonlocal cut
        if stop.is_set():
            cut = True
            if step is not None:
                step.cancel()
        stop.set()

    with _signals({signal.SIGINT: signalled, signal.SIGTERM: signalled, **(others or {})}):
        step = asyncio.create_task(service.start())
        if not await _ended(step, stop):
            return not cut
        try:
            if main is None:
                await stop.wait()
            else:
                step = asyncio.ensure_future(main())
                await _ended(step, stop)
        finally:
            step = asyncio.create_task(service.stop())
            if cut:  # it has to begin, or it would close nothing
                asyncio.get_running_loop().call_soon(step.cancel)
            await asyncio.wait([step])
        if not step.cancelled():
            step.result()
    return not cut


async def _ended(work: asyncio.Future[Any], stop: asyncio.Event) -> bool:
    """Whether the work came to its own end; at `stop` it is cancelled. Raises its error."""
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait([work])
    if work.cancelled():
        return False
    work.result()
    return True


@contextmanager
def _signals(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Route signals to their handlers. In other threads than the main one, signals are not ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in handlers}
    ours = []
    for number, callback in handlers.items():
        try:
            loop.add_signal_handler(number, callback)
            ours.append(number)
        except NotImplementedError:  # Windows' loops
            signal.signal(number, lambda *_, run=callback: loop.call_soon_threadsafe(run))
    try:
        yield
    finally:
        for number in ours:
            loop.remove_signal_handler(number)  # or the loop would do it when it is closed, after what comes now
        for number, handler in before.items():
            signal.signal(number, handler)
