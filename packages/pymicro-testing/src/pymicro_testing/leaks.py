"""Checks that a piece of code leaves nothing behind: no task, no thread, no socket or file.

Written as a context manager and not as a fixture, because a fixture would also see the tasks of the test runner.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, cast
from unittest.mock import patch

_FRAMES: Final = 8
_EXECUTORS: Final = ("asyncio_", "uvloop_")  # how the loops name the threads of their default executors
_DESCRIPTORS: Final = Path("/proc/self/fd")
_Origin = tuple[tuple[CodeType, int], ...]


class LeakError(AssertionError):
    """Something outlived its owner. The text lists what, and where it was created."""


@asynccontextmanager
async def no_leaks(*, grace: float = 2.0) -> AsyncIterator[None]:
    """Fail unless the block ends with the tasks, threads, sockets and files that it began with.

    Tasks are those of the running loop. Threads of the loop's default executor are not counted: they belong to the
    loop and end with it. Descriptors are looked up in `/proc/self/fd`; where there is none, that check is left out.

    Args:
        grace: seconds that what is closing may take to be gone. A block that leaves nothing does not wait.

    Raises:
        LeakError: something is left. Not raised when the block itself raised.
    """
    origins = _Origins()
    before = _seen()
    with origins.recording():
        yield
    end = time.monotonic() + grace
    while left := {key: thing for key, thing in _seen().items() if key not in before}:
        if time.monotonic() >= end:
            raise LeakError("\n".join(["left behind:", *(origins.describe(thing) for thing in left.values())]))
        await asyncio.sleep(0.005)


def _seen() -> dict[object, Any]:
    """Everything that counts, by a key that tells it from what came before under the same number."""
    current = asyncio.current_task()
    seen: dict[object, Any] = {task: task for task in asyncio.all_tasks() if task is not current}
    seen |= {thread: thread for thread in threading.enumerate() if not thread.name.startswith(_EXECUTORS)}
    seen |= {_key(*link): link for link in _descriptors()}
    return seen


def _descriptors() -> Iterator[tuple[int, str]]:
    if not _DESCRIPTORS.is_dir():
        return
    for name in os.listdir(_DESCRIPTORS):
        try:
            target = os.readlink(_DESCRIPTORS / name)
        except OSError:
            continue  # the descriptor of this very listing
        if target != "/dev/null":  # uvloop keeps one in reserve
            yield int(name), target


def _key(number: int, target: str) -> object:
    """A listening socket is known by its address, so that a server which was started again is no leak."""
    if target.startswith("socket:"):
        try:
            with socket.socket(fileno=os.dup(number)) as copy:
                if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    return copy.getsockname()
        except OSError:
            pass  # closed meanwhile, or of a family that knows no such thing
    return number, target


class _Origins:
    """Where tasks, threads and sockets were created, while it records."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[Any, _Origin] = weakref.WeakKeyDictionary()

    @contextmanager
    def recording(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        former = loop.get_task_factory()
        loop.set_task_factory(cast(Any, self._task_factory(former)))
        _listeners.add(self._socket_made)
        if not _hooked:
            sys.addaudithook(_audit)
            _hooked.append(True)
        try:
            with patch.object(threading.Thread, "start", self._start()):
                yield
        finally:
            _listeners.discard(self._socket_made)
            loop.set_task_factory(former)

    def _start(self) -> Callable[[threading.Thread], None]:
        former = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            self._of[thread] = _origin(sys._getframe(1))
            former(thread)

        return start

    def _task_factory(self, former: Any) -> Callable[..., Any]:
        def create(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
            task = former(loop, coro, **options) if former else asyncio.Task(coro, loop=loop, **options)
            self._of[task] = _origin(sys._getframe(1))
            return task

        return create

    def _socket_made(self, made: socket.socket) -> None:
        self._of[made] = _origin(sys._getframe(3))

    def describe(self, thing: Any) -> str:
        """One paragraph: what is left and where it came from."""
        if isinstance(thing, asyncio.Task):
            return f"- task {thing.get_name()!r}, {_where(*thing.get_stack(limit=1))}{self._text(thing)}"
        if isinstance(thing, threading.Thread):
            return f"- thread {thing.name!r}, {_where(sys._current_frames().get(thing.ident or 0))}{self._text(thing)}"
        number, target = thing
        for made in list(self._of):
            if isinstance(made, socket.socket) and made.fileno() == number:
                return f"- descriptor {number}: {_socket_text(made)}{self._text(made)}"
        return f"- descriptor {number}: {target}{_peers(number, target)}"

    def _text(self, thing: Any) -> str:
        lines = (
            f"\n    {code.co_filename}:{line} in {code.co_name}: {linecache.getline(code.co_filename, line).strip()}"
            for code, line in self._of.get(thing, ())
        )
        return "".join(lines) or " (created before the block, or by code that keeps no record)"


# One audit hook for the process, installed when first needed, since Python cannot take one away again.
_listeners: set[Callable[[socket.socket], None]] = set()
_hooked: list[bool] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _listeners and event == "socket.__new__" and isinstance(arguments[0], socket.socket):
        for listener in tuple(_listeners):
            listener(arguments[0])


def _origin(frame: FrameType | None) -> _Origin:
    """The innermost calls, those of asyncio and of the standard library's plumbing left out."""
    calls: list[tuple[CodeType, int]] = []
    while frame is not None and len(calls) < _FRAMES:
        if not frame.f_code.co_filename.startswith(_PLUMBING):
            calls.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(calls)


_PLUMBING: Final = (os.path.dirname(asyncio.__file__), str(socket.__file__), str(threading.__file__))


def _where(frame: FrameType | None = None) -> str:
    return f"waiting at {frame.f_code.co_filename}:{frame.f_lineno}" if frame else "about to end"


def _socket_text(made: socket.socket) -> str:
    # `repr` asks the operating system for the addresses and leaves out what it does not know.
    return "socket " + repr(made).partition("proto=")[2].partition(", ")[2].removesuffix(">")


def _peers(number: int, target: str) -> str:
    """The addresses of a socket that no Python object stands for, as those of uvloop."""
    if not target.startswith("socket:"):
        return ""
    try:
        with socket.socket(fileno=os.dup(number)) as copy:
            return f" {_socket_text(copy)}"
    except OSError:
        return ""
