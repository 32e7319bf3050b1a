"""A subscription to a channel: fire and forget, as go-micro `broker/redis` has it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from pymicro.broker import Consumer, Delivery, Settlement, envelope
from pymicro.clock import Clock
from pymicro.errors import BackendUnavailable, Closed, ConnectionFailed
from pymicro.message import Message
from pymicro.plugins import Limits
from pymicro.plugins.toolkit import log
from pymicro_broker_redis._faults import Fault
from pymicro_broker_redis._link import Link

_PING: Final = 5.0  # seconds of silence after which the server is asked whether it is there


class ChannelConsumer(Consumer):
    """Holds what the server sent, at most `prefetch` messages; for more, it does not read from its connection.

    What waits then is in the buffers of the network and of the server, which ends the connection when they are full
    (`client-output-buffer-limit pubsub`). That is logged, as every interruption is: what was published meanwhile is
    lost.

    Args:
        link: for the connection.
        topic, prefetch: as in `Broker.consume`.
        limits: messages beyond them are dropped.
        clock, logger: the time, and who hears of what is lost.
        closing: called once, when the consumer closes.
    """

    def __init__(
        self,
        link: Link,
        topic: str,
        prefetch: int,
        limits: Limits,
        clock: Clock,
        logger: logging.Logger,
        closing: Callable[[ChannelConsumer], None],
    ) -> None:
        self._topic = topic
        self._prefetch = prefetch
        self._limits = limits
        self._clock = clock
        self._logger = logger
        self._closing = closing
        self._line = link.connection()
        self._fault = Fault(logger, topic=topic)
        self._here: deque[tuple[Message, str | None]] = deque()
        self._unsettled: set[Delivery[Any]] = set()
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._attached = False
        self._detached = False
        self._closed = False
        self._pinged = False

    async def start(self) -> None:
        """Attach; messages published from now on arrive."""
        await self._attach()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"redis {self._topic}")

    @property
    def attached(self) -> bool:
        return self._attached and not self._detached

    async def _run(self) -> None:
        while True:
            try:
                if not self._attached:
                    await self._attach()
                await self._listen()
            except ConnectionFailed as error:
                self._attached = False
                await self._line.aclose()
                await self._clock.sleep(self._fault.failed(error))

    async def _attach(self) -> None:
        await self._line.open()
        await self._line.ask("SUBSCRIBE", self._topic)
        self._pinged = False
        self._attached = True

    async def _listen(self) -> None:
        while True:
            while len(self._here) + len(self._unsettled) >= self._prefetch:
                self._room.clear()
                await self._room.wait()
            answer = await self._line.read(_PING)
            self._fault.ended()
            if answer is not None:
                self._pinged = False
                if answer[0] == b"message":
                    self._accept(answer[2])
            elif self._pinged:
                raise BackendUnavailable("the server is silent")
            else:
                self._pinged = True
                await self._line.send("PING")

    def _accept(self, data: bytes) -> None:
        try:
            if len(data) > envelope.longest(self._limits):
                raise ValueError(f"{len(data)} bytes are over the limit")
            self._here.append(envelope.read(data))
        except ValueError as error:
            log(self._logger, logging.WARNING, "message dropped", topic=self._topic, error=str(error))
        else:
            self._news.set()

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        while True:
            if self._closed:
                raise Closed("the consumer was closed")
            if self._here:
                return [self._hand_out() for _ in range(min(max, len(self._here)))]
            if self._task is None or self._task.done():
                raise Closed("the consumer was detached")
            self._news.clear()
            await self._news.wait()

    def _hand_out(self) -> Delivery[Any]:
        message, key = self._here.popleft()
        delivery: Delivery[Any] = Delivery(topic=self._topic, message=message, key=key)
        self._unsettled.add(delivery)
        return delivery

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        """Make room. The server knows nothing of deliveries."""
        self._unsettled.discard(delivery)
        self._room.set()

    async def extend(self, delivery: Delivery[Any]) -> None:
        """Nothing to do: a delivery is held for as long as the consumer lives."""

    async def detach(self) -> None:
        self._detached = True
        try:
            if self._task is not None and not self._task.done():
                self._task.cancel()
                await asyncio.wait({self._task})
        finally:
            self._news.set()
            await self._line.aclose()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if self._here:
                log(self._logger, logging.WARNING, "messages lost", topic=self._topic, number=len(self._here))
            self._here.clear()
            self._unsettled.clear()
            self._closing(self)
        await self.detach()
