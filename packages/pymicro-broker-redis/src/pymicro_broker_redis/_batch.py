"""Requests of many callers, sent together: while one is on its way, the next ones gather."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

from pymicro.errors import BackendUnavailable

T = TypeVar("T")

_MOST: Final = 500
_MOST_BYTES: Final = 512 * 1024


class Batch(Generic[T]):
    """Hands single items to a request that takes many.

    Args:
        send: makes the request; the results are those of the items, in order. One that is an error is raised.
        size: of an item in bytes, so that a request has few large ones; None where all are small.
        withdraws: whether an item that waits for its turn is left out when its caller is cancelled.
    """

    def __init__(
        self,
        send: Callable[[Sequence[T]], Awaitable[Sequence[Any]]],
        *,
        size: Callable[[T], int] | None = None,
        withdraws: bool = False,
    ) -> None:
        self._send = send
        self._size = size
        self._withdraws = withdraws
        self._waiting: OrderedDict[asyncio.Future[Any], T] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def add(self, item: T) -> Any:
        """The item's result. If the caller is cancelled while the request is on its way, that goes on.

        Raises:
            BackendUnavailable: the batch was closed; whatever `send` raises.
        """
        if self._closed:
            raise BackendUnavailable("closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting[answer] = item
        if self._task is None:
            self._task = loop.create_task(self._flush(), name="redis batch")
        try:
            return await answer
        except asyncio.CancelledError:
            if self._withdraws:
                self._waiting.pop(answer, None)
            if not answer.cancelled():
                answer.exception()  # asyncio shall not complain that nobody looked at it
            raise

    async def _flush(self) -> None:
        answers: Sequence[asyncio.Future[Any]] = ()
        try:
            while self._waiting:
                answers, items = self._take()
                try:
                    results = await self._send(items)
                except Exception as error:
                    _fail(answers, error)
                else:
                    for answer, result in zip(answers, results, strict=True):
                        _settle(answer, result)
        finally:
            self._task = None
            _fail(answers, BackendUnavailable("closed"))

    def _take(self) -> tuple[list[asyncio.Future[Any]], list[T]]:
        answers: list[asyncio.Future[Any]] = []
        items: list[T] = []
        size = 0
        while self._waiting and len(items) < _MOST and size < _MOST_BYTES:
            answer, item = self._waiting.popitem(last=False)
            answers.append(answer)
            items.append(item)
            if self._size is not None:
                size += self._size(item)
        return answers, items

    async def aclose(self) -> None:
        """Wait for what is on its way; those that wait then, or if that is cancelled, are told that it was closed."""
        self._closed = True
        try:
            if self._task is not None:
                await asyncio.wait({self._task})
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
            _fail(self._waiting, BackendUnavailable("closed"))
            self._waiting.clear()


def _settle(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


def _fail(answers: Iterable[asyncio.Future[Any]], error: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
