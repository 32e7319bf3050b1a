"""Carrying out what was decided about deliveries."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from pymicro._internal.logs import log
from pymicro.broker._contract import Broker
from pymicro.broker._retry import RetryPolicy, dead_letter
from pymicro.broker._types import Ack, Capability, Delivery, Reject, Retry, Settlement
from pymicro.broker._work import Fault, Work
from pymicro.clock import Clock


class Settler:
    """Tells the broker, in the way that its abilities ask for.

    Args:
        broker: where dead letters are published.
        policy: back-off and dead letters.
        clock: the time to wait for what the broker cannot delay.
        logger: for what is given up.
        topic: the subscribed topic, for the log.
        timeout: seconds for the publishing of one dead letter.
    """

    def __init__(
        self, broker: Broker, policy: RetryPolicy, clock: Clock, logger: logging.Logger, topic: str, timeout: float
    ) -> None:
        self._broker = broker
        self._policy = policy
        self._clock = clock
        self._logger = logger
        self._timeout = timeout
        self.redelivers = Capability.REDELIVERY in broker.capabilities
        self._delays = Capability.DELAY in broker.capabilities
        self._pauses: set[asyncio.Future[bool]] = set()
        self._hurried = False
        self._telling = Fault(logger, "settling", topic=topic)
        self._burying = Fault(logger, "publishing of dead letters", topic=topic)

    def stays(self, delivery: Delivery[Any]) -> bool:
        """Whether a retry of the delivery takes place here, not through the broker."""
        return not self.redelivers or (self._policy.keep_order and delivery.key is not None)

    async def finish(self, work: Work, settlement: Settlement) -> None:
        """Tell the broker, after publishing the dead letter of what is rejected. Errors are the caller's."""
        if isinstance(settlement, Reject):
            settlement = await self._bury(work.delivery, settlement)
        await work.consumer.settle(work.delivery, settlement)
        work.told = True

    async def _bury(self, delivery: Delivery[Any], reject: Reject) -> Ack | Reject:
        topic = self._policy.dead_topic(delivery.topic)
        if topic is not None:
            message = dead_letter(delivery, reject.reason)
            await self._broker.publish(topic, message, key=delivery.key, keep=True, timeout=self._timeout)
        log(
            self._logger,
            logging.ERROR,
            "event given up",
            topic=delivery.topic,
            count=delivery.count,
            reason=reject.reason,
            dead_letters=topic,
        )
        # With a dead letter of ours the broker must not make one of its own.
        return reject if topic is None else Ack()

    async def acknowledge(self, work: Work, ack: Ack) -> None:
        """Tell the broker that it is done; faults are logged."""
        work.settlement = ack
        try:
            await work.consumer.settle(work.delivery, ack)
        except Exception as error:
            self._telling.begin(error)  # the broker was not told, so it delivers the message again
        else:
            work.told = True
            if self._telling.active:
                self._telling.end()

    async def conclude(self, work: Work, settlement: Settlement) -> bool:
        """Tell the broker, come what may; faults are logged. False: it was not possible in time, and is lost."""
        if isinstance(settlement, Ack):
            await self.acknowledge(work, settlement)
            return True
        if isinstance(settlement, Retry):
            return await self._give_back(work, settlement.delay)
        while True:
            try:
                await self.finish(work, settlement)
            except Exception as error:
                self._burying.begin(error)
            else:
                self._burying.end()
                return True
            delay = self._policy.delay_after(work.delivery.count)
            if self.redelivers:
                return await self._give_back(work, delay)
            if not await self.pause(delay):
                return False

    async def _give_back(self, work: Work, delay: float) -> bool:
        if not self.redelivers:
            return False
        if delay > 0 and not self._delays:
            await self.pause(delay)
            delay = 0.0
        try:
            await work.consumer.settle(work.delivery, Retry(delay))
        except Exception as error:
            self._telling.begin(error)
        else:
            work.told = True
            self._telling.end()
        return True

    async def pause(self, seconds: float) -> bool:
        """Wait; False when `hurry` cut it short."""
        if self._hurried:
            return False
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(seconds, _resolve, done, True)
        self._pauses.add(done)
        try:
            return await done
        finally:
            timer.cancel()
            self._pauses.discard(done)

    def hurry(self) -> None:
        """Cut short every pause, from now on."""
        self._hurried = True
        for done in self._pauses:
            _resolve(done, False)


def _resolve(done: asyncio.Future[bool], passed: bool) -> None:
    if not done.done():
        done.set_result(passed)
