"""Runs a coroutine inside the running task, but in a context of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Not None, which a bare `yield` hands on.
_NOTHING = object()


class InContext(Generic[T]):
    """Await it to run a coroutine to its end, each step inside another context than the awaiting task's.

    What the coroutine sets in context variables is seen by nobody else, as if it had a task of its own, without the
    cost of one. `asyncio.current_task()` is the awaiting task, so time-outs and task groups inside work.

    Args:
        coroutine: to run.
        run: the `run` of its context; None for a copy of the present one.
        waiting_for: what the coroutine's first step yielded, if somebody made that already.
    """

    __slots__ = ("_coroutine", "_run", "_waiting_for")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], run: Callable[..., Any] | None = None, waiting_for: Any = _NOTHING
    ) -> None:
        self._coroutine = coroutine
        self._run = run or copy_context().run
        self._waiting_for = waiting_for

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # the methods below are what `await` uses of a generator

    def __iter__(self) -> InContext[T]:
        return self

    def __next__(self) -> Any:
        """Make the next step, or hand on what the first one waits for."""
        waiting_for = self._waiting_for
        if waiting_for is _NOTHING:
            return self._run(self._coroutine.send, None)
        self._waiting_for = _NOTHING
        return waiting_for

    def send(self, value: Any) -> Any:
        """Resume, as `generator.send`."""
        return self._run(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Raise inside, as `generator.throw`."""
        return self._run(self._coroutine.throw, *error)

    def close(self) -> None:
        """End it, as `generator.close`."""
        self._run(self._coroutine.close)
