"""A delivery while the dispatcher has it, and what keeps it here."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from pymicro._internal.logs import log
from pymicro.broker._contract import Consumer
from pymicro.broker._types import Delivery, Retry, Settlement
from pymicro.clock import Clock
from pymicro.errors import BackendRefused

_LEASE_PARTS: Final = 3  # two renewals may fail before a lease is over


class Fault:
    """A condition that is logged once when it begins and once when it ends."""

    def __init__(self, logger: logging.Logger, what: str, **fields: Any) -> None:
        self._logger = logger
        self._what = what
        self._fields = fields
        self.active = False

    def begin(self, error: BaseException) -> None:
        """It is there, perhaps still."""
        if not self.active:
            self.active = True
            log(self._logger, logging.WARNING, f"{self._what} failed", **self._fields, error=repr(error))

    def end(self) -> None:
        """It is gone, perhaps for long."""
        if self.active:
            self.active = False
            log(self._logger, logging.INFO, f"{self._what} works again", **self._fields)


class Work:
    """One delivery, what was decided about it, and whether the broker knows.

    The delivery's own methods work through it.

    Args:
        consumer: where the delivery comes from.
        delivery: the delivery.
        finish: tells the broker of an `Ack` or a `Reject`, or raises.
    """

    __slots__ = ("_finish", "consumer", "delivery", "expires", "handling", "lost", "settlement", "told")

    def __init__(
        self, consumer: Consumer, delivery: Delivery[Any], finish: Callable[[Work, Settlement], Awaitable[None]]
    ) -> None:
        self.consumer = consumer
        self.delivery = delivery
        self._finish = finish
        #: When the lease is over, by the clock's `monotonic`.
        self.expires = math.inf
        #: The task that runs the handler, while it does.
        self.handling: asyncio.Task[Any] | None = None
        #: The lease ended, so the message may be with another consumer.
        self.lost = False
        self.settlement: Settlement | None = None
        self.told = False

    @property
    def settled(self) -> bool:
        return self.settlement is not None

    async def settle(self, settlement: Settlement) -> None:
        if self.settlement is not None:
            return
        self.settlement = settlement
        if isinstance(settlement, Retry):
            return  # while the handler runs, the message must not be handled a second time: the dispatcher tells later
        try:
            await self._finish(self, settlement)
        except BaseException:
            self.settlement = None
            raise

    async def extend(self) -> None:
        if not self.told:
            await self.consumer.extend(self.delivery)

    def again(self) -> None:
        """Begin the next delivery, in place."""
        self.delivery.count += 1
        self.settlement = None


class _Done:
    """See `DONE`."""

    settled = True

    async def settle(self, settlement: Settlement) -> None:
        """Nothing is left to tell."""

    async def extend(self) -> None:
        """Nothing is held."""


#: Answers for a delivery that is no longer here. Its work would hold it in a circle, with the body, until the garbage
#: collector comes by.
DONE: Final = _Done()


class Leases:
    """Extends what was lent for a time, as long as it is here."""

    def __init__(self, clock: Clock, fault: Fault, timeout: float) -> None:
        self._clock = clock
        self._fault = fault
        self._timeout = timeout

    async def keep(self, consumer: Consumer, lease: float, held: Collection[Work]) -> None:
        """Extend what `held` has of the consumer, until cancelled."""
        while True:
            await self._clock.sleep(lease / _LEASE_PARTS)
            mine = [work for work in held if work.consumer is consumer and not (work.told or work.lost)]
            errors = await asyncio.gather(*(self._extend(work, lease) for work in mine))
            failed = [error for error in errors if error is not None]
            if failed:
                self._fault.begin(failed[0])
            elif mine:
                self._fault.end()

    async def _extend(self, work: Work, lease: float) -> Exception | None:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                await work.extend()
        except Exception as error:
            if isinstance(error, BackendRefused) or self._clock.monotonic() >= work.expires:
                _lose(work)
            return error
        work.expires = began + lease
        return None


def _lose(work: Work) -> None:
    work.lost = not work.told
    if work.lost and work.handling is not None:
        work.handling.cancel()
