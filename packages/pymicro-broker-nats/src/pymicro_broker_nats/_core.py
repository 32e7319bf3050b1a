"""Consumers of core NATS: the server pushes, and remembers nothing."""

from __future__ import annotations

import logging
from typing import Any

from pymicro.broker import Delivery, Settlement
from pymicro_broker_nats._consumer import NatsConsumer, Source
from pymicro_broker_nats._options import NatsBrokerOptions
from pymicro_nats.connection import Arrived, Session


class CoreConsumer(NatsConsumer):
    """Holds what arrived up to the bounds of the options. What comes then is dropped, counted and logged.

    Core NATS cannot make publishers wait. What is not settled when it closes is lost: it is in no other place.
    """

    def __init__(self, source: Source, options: NatsBrokerOptions) -> None:
        super().__init__(source)
        self._options = options
        self._dropped = 0

    async def _attach(self, session: Session) -> Any:
        return await session.take(self.source.topic, self.source.queue, self._arrived)

    async def _want(self, number: int) -> None:
        """Nothing to do: the server pushes."""

    def _arrived(self, message: Arrived) -> None:
        size = len(message.data)
        if size > self._longest and self._too_large(message):
            return
        if len(self._here) >= self._options.max_messages or (
            self._here and self._bytes + size > self._options.max_bytes
        ):
            self._drop()
            return
        super()._arrived(message)

    def _drop(self) -> None:
        if not self._dropped:
            waiting = len(self._here)
            self._log(logging.WARNING, "subscription too slow, messages dropped", waiting=waiting, bytes=self._bytes)
        self._dropped += 1

    def _hand_out(self, number: int) -> list[Delivery[Any]]:
        deliveries = super()._hand_out(number)
        if self._dropped and len(self._here) <= self._options.max_messages // 2:
            self._log(logging.INFO, "subscription keeps up again", dropped=self._dropped)
            self._dropped = 0
        return deliveries

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        if self._unsettled.pop(delivery, None) is not None:
            self._news.set()

    async def extend(self, delivery: Delivery[Any]) -> None:
        """Nothing to do: a delivery is held for as long as the consumer lives."""

    async def _give_back(self, session: Session) -> None:
        """Nobody takes anything back."""

    async def aclose(self) -> None:
        if self._here or self._dropped:
            self._log(logging.WARNING, "messages lost", number=len(self._here), dropped=self._dropped)
        await super().aclose()
