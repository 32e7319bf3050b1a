"""The pull form of a subscription."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from pymicro.broker._contract import Broker
from pymicro.broker._dispatcher import Dispatcher
from pymicro.broker._retry import RetryPolicy
from pymicro.broker._types import Delivery
from pymicro.clock import Clock
from pymicro.plugins.toolkit import Component

T = TypeVar("T")


class Subscription(Component, Generic[T]):
    """Deliveries of one topic, one after the other, in a loop:

        async with Subscription(broker, "events") as subscription:
            async for delivery in subscription:
                ...

    It has the guarantees of a `Dispatcher`, with the body of the loop as the handler. A delivery is acknowledged when
    the next one is asked for or the block ends, unless it was settled before. An error that leaves the block is a
    failure of the delivery, which the policy retries; cancellation gives it back. Draining ends the loop. One loop at
    a time.

    Args:
        broker: an open broker.
        topic: the topic to consume.
        decode: makes the delivery's value; None for the body as bytes. Its error is a failure of the delivery, which
            the loop does not see.
        queue, retry, manual, native, clock, logger, timeout: as for `Dispatcher`.
        prefetch: how many deliveries are here at a time. More than 1 is faster over a network; but those that the
            loop never comes to were delivered once for nothing, which their count shows.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        *,
        decode: Callable[[Delivery[Any]], T] | None = None,
        queue: str = "",
        prefetch: int = 1,
        retry: RetryPolicy | None = None,
        manual: bool = False,
        native: Any = None,
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
        timeout: float = 5.0,
    ) -> None:
        self._decode: Callable[[Delivery[Any]], Any] = decode or _body
        self._timeout = timeout
        self._dispatcher = Dispatcher(
            broker,
            topic,
            self._offer,
            queue=queue,
            concurrency=1,
            prefetch=prefetch,
            retry=retry,
            manual=manual,
            native=native,
            clock=clock,
            logger=logger,
            timeout=timeout,
        )
        self._offered: Delivery[T] | None = None
        self._verdict: asyncio.Future[BaseException | None] | None = None
        self._changed = asyncio.Event()
        self._over = False

    @property
    def attached(self) -> bool:
        """Whether messages of the topic reach this subscription now."""
        return self._dispatcher.attached

    @property
    def in_flight(self) -> int:
        """How many deliveries are here, the one in the loop's body included."""
        return self._dispatcher.in_flight

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> Delivery[T]:
        """The next delivery; the one before is acknowledged. Cancellation loses none.

        Raises:
            Closed: the subscription was not opened.
        """
        if not self._over:
            self.require_open()
        if self._offered is None:
            self._judge(None)
        while self._offered is None:
            if self._over:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        delivery, self._offered = self._offered, None
        return delivery

    async def drain(self, timeout: float) -> None:
        """Take no more messages, let the loop have those that are here for `timeout` seconds, and end it."""
        try:
            await self._dispatcher.drain(timeout)
        finally:
            await self.aclose()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, Exception):
                self._judge(error if self._offered is None else asyncio.CancelledError())
                await self._dispatcher.drain(self._timeout, pending=False)
        finally:
            await self.aclose()
            if error is not None:
                error.__traceback__ = trace  # the dispatcher raised it too, and added places that mislead

    async def _open(self) -> None:
        await self._dispatcher.__aenter__()

    async def _close(self) -> None:
        try:
            await self._dispatcher.aclose()
        finally:
            self._over = True
            self._offered = None
            self._changed.set()

    async def _offer(self, delivery: Delivery[Any]) -> None:
        delivery.value = self._decode(delivery)
        self._offered = delivery
        self._verdict = verdict = asyncio.get_running_loop().create_future()
        self._changed.set()
        try:
            error = await verdict
        finally:
            self._offered = self._verdict = None
        if error is not None:
            raise error

    def _judge(self, error: BaseException | None) -> None:
        """Say how the handling of the delivery ended that the loop has, or could have had."""
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(error)


def _body(delivery: Delivery[Any]) -> bytes:
    return delivery.message.body
