"""A subscription of this process: a bounded queue of messages between the network and the dispatcher."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pymicro.broker import Consumer, Delivery, Settlement
from pymicro.clock import Clock
from pymicro.errors import Closed
from pymicro.message import Message
from pymicro.plugins.toolkit import log
from pymicro.registry import Registration
from pymicro_broker_http._options import HttpBrokerOptions

#: What became of a message that was offered: taken; no room, or not idle; the consumer takes no more.
Verdict = Literal["taken", "full", "gone"]


class HttpConsumer(Consumer):
    """Holds what publishers sent, until it is settled.

    What is not settled when it closes is lost: it is in no other place. `settle` therefore frees room and tells
    nobody.

    Args:
        id: the node's id in the registry.
        topic, queue, prefetch: as in `Broker.consume`.
        options: bounds.
        clock: the time to wait for room.
        logger: hears of lost messages.
        closing: called once, when the consumer closes.
    """

    def __init__(
        self,
        id: str,
        topic: str,
        queue: str,
        prefetch: int,
        options: HttpBrokerOptions,
        clock: Clock,
        logger: logging.Logger,
        closing: Callable[[HttpConsumer], None],
    ) -> None:
        self.id = id
        self.topic = topic
        self.queue = queue
        self._prefetch = prefetch
        self._options = options
        self._clock = clock
        self._logger = logger
        self._closing = closing
        self._registration: Registration | None = None
        self._here: deque[tuple[Message, str | None]] = deque()
        self._unsettled: dict[Delivery[Any], int] = {}
        self._bytes = 0
        self._offered: deque[tuple[Message, str | None, asyncio.Future[Verdict]]] = deque()
        self._news = asyncio.Event()
        self._detached = False
        self._closed = False

    @property
    def attached(self) -> bool:
        registered = self._registration is not None and self._registration.state == "registered"
        return registered and not self._detached

    @property
    def takes(self) -> bool:
        """Whether messages may be offered, whatever the registry knows."""
        return not self._detached

    def registered(self, registration: Registration) -> None:
        """This is what makes others find the consumer; it is closed with it."""
        self._registration = registration

    # from publishers

    async def offer(self, message: Message, key: str | None, timeout: float, *, if_idle: bool = False) -> Verdict:
        """Take a message; wait up to `timeout` seconds while there is no room.

        With `if_idle` it is taken only if the dispatcher can have it at once.
        """
        if self._detached:
            return "gone"
        if if_idle and len(self._here) + len(self._unsettled) >= self._prefetch:
            return "full"
        if not self._offered and self._has_room(message):
            self._add(message, key)
            return "taken"
        admitted: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._offered.append((message, key, admitted))
        timer = self._clock.call_later(timeout, _resolve, admitted, "full")
        try:
            return await admitted
        finally:
            timer.cancel()
            self._admit()

    def _has_room(self, message: Message) -> bool:
        options, held = self._options, len(self._here) + len(self._unsettled)
        # An empty subscription takes any message: one over the limit would wait for ever.
        return not held or (held < options.max_messages and self._bytes + message.size <= options.max_bytes)

    def _add(self, message: Message, key: str | None) -> None:
        self._here.append((message, key))
        self._bytes += message.size
        self._news.set()

    def _admit(self) -> None:
        """Take what waits, first come first served, as far as there is room."""
        while self._offered:
            message, key, admitted = self._offered[0]
            if not admitted.done():
                if not self._has_room(message):
                    return
                self._add(message, key)
                admitted.set_result("taken")
            self._offered.popleft()

    # from the dispatcher

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        while True:
            if self._closed:
                raise Closed("the consumer was closed")
            limit = min(max, self._prefetch - len(self._unsettled), len(self._here))
            if limit > 0:
                return [self._hand_out() for _ in range(limit)]
            if self._detached and not self._here:
                raise Closed("the consumer was detached")
            self._news.clear()
            await self._news.wait()

    def _hand_out(self) -> Delivery[Any]:
        message, key = self._here.popleft()
        delivery: Delivery[Any] = Delivery(topic=self.topic, message=message, key=key)
        self._unsettled[delivery] = message.size
        return delivery

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        size = self._unsettled.pop(delivery, None)
        if size is not None:
            self._bytes -= size
            self._admit()
            self._news.set()

    async def extend(self, delivery: Delivery[Any]) -> None:
        """Nothing to do: a delivery is held for as long as the consumer lives."""

    async def detach(self) -> None:
        if not self._detached:
            self._detached = True
            for _, _, admitted in self._offered:
                _resolve(admitted, "gone")
            self._news.set()
        if self._registration is not None:
            try:
                await self._registration.aclose()
            except Exception as error:  # the registry forgets by the TTL, and the rest must still be closed
                log(self._logger, logging.ERROR, "cannot deregister", topic=self.topic, error=repr(error))

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if self._here:
                number = len(self._here)
                log(self._logger, logging.WARNING, "messages lost", topic=self.topic, queue=self.queue, number=number)
            self._here.clear()
            self._unsettled.clear()
            self._closing(self)
        self._news.set()
        await self.detach()


def _resolve(admitted: asyncio.Future[Verdict], verdict: Verdict) -> None:
    if not admitted.done():
        admitted.set_result(verdict)
