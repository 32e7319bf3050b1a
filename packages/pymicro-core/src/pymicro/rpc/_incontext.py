"""Runs a coroutine inside the running task, but in a context of its own."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class InContext(Generic[T]):
    """Await it to run `coroutine` to its end, each of its steps inside a copy of the present context.

    What the coroutine sets in context variables is seen by nobody else, as if it had a task of its own, without the
    cost of one. `asyncio.current_task()` is the awaiting task, so time-outs and task groups inside work.
    """

    __slots__ = ("_coroutine", "_run")

    def __init__(self, coroutine: Coroutine[Any, Any, T], context: Context | None = None) -> None:
        self._coroutine = coroutine
        self._run = (context or copy_context()).run

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # the methods below are what `await` uses of a generator

    def __iter__(self) -> InContext[T]:
        return self

    def __next__(self) -> Any:
        return self._run(self._coroutine.send, None)

    def send(self, value: Any) -> Any:
        """Resume, as `generator.send`."""
        return self._run(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Raise inside, as `generator.throw`."""
        return self._run(self._coroutine.throw, *error)

    def close(self) -> None:
        """End it, as `generator.close`."""
        self._run(self._coroutine.close)
