"""Tasks that outlive the call that started them, and errors that are kept."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start_task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task that serves many callers: it gets nothing of the context of the one that started it.

    Keep it, and end it with `end_task`.
    """
    return asyncio.get_running_loop().create_task(work, name=name, context=contextvars.Context())


async def end_task(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait for it; None is no task. Its result or error is not raised.

    Forget the task then: what was cancelled holds its frames, and sockets in them.
    """
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def detached(error: Exception) -> Exception:
    """The error without its tracebacks and those of its causes, to be kept: what they hold would live as long."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error
