"""What consumers of both modes share: messages that wait here, and attaching again."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from pymicro.broker import Consumer, Delivery, envelope
from pymicro.errors import Closed, PymicroError
from pymicro.message import Message
from pymicro.metadata import EMPTY
from pymicro.plugins import Build
from pymicro.plugins.toolkit import backoff, log
from pymicro_nats.connection import Arrived, Link, Session

#: Seconds between two attempts to attach, at first and at most.
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 2.0

#: Seconds for each step of leaving.
_LEAVE_TIME: Final = 1.0


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer is made of.

    Attributes:
        link: the connection.
        build: clock, logger, limits, time-out.
        topic, queue, prefetch: as in `Broker.consume`.
        closing: called once, when the consumer closes.
    """

    link: Link
    build: Build
    topic: str
    queue: str
    prefetch: int
    closing: Callable[[Any], None]


class NatsConsumer(Consumer):
    """A subscription that attaches again by itself."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._longest = envelope.longest(source.build.limits)
        self._here: deque[Arrived] = deque()
        self._bytes = 0  # of those
        self._unsettled: dict[Delivery[Any], Arrived] = {}
        self._news = asyncio.Event()
        self._broken = asyncio.Event()
        self._session: Session | None = None
        self._tried: Session | None = None
        self._subscription: Any = None
        self._keeper: asyncio.Task[None] | None = None
        self._detached = False
        self._left = False
        self._closed = False

    # what the modes add

    @abstractmethod
    async def _attach(self, session: Session) -> Any:
        """Attach over this connection; the driver's subscription. What it began is undone when it fails."""

    @abstractmethod
    async def _want(self, number: int) -> None:
        """The dispatcher waits for so many messages, at least 1."""

    @abstractmethod
    async def _give_back(self, session: Session) -> None:
        """Give back what is here, closing."""

    async def _until_broken(self) -> None:
        await self._broken.wait()

    # attaching

    async def start(self) -> None:
        """Attach, and stay so.

        Raises:
            BackendUnavailable, BackendRefused: as `Broker.consume`.
        """
        async with self.source.link.within(self.source.build.timeout, f"subscribing to {self.source.topic!r}"):
            await self._attach_once(await self.source.link.session())
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"nats consumer {self.source.topic}")

    @property
    def attached(self) -> bool:
        session = self._session
        return session is not None and not session.lost.is_set() and not (self._broken.is_set() or self._detached)

    async def _attach_once(self, session: Session) -> None:
        self._broken.clear()
        self._tried = session
        self._subscription = await self._attach(session)
        self._session = session
        session.on_lost(self._broken.set)
        if session.lost.is_set():
            self._broken.set()
        self._news.set()

    async def _keep(self) -> None:
        while True:
            await self._until_broken()
            await self._let_go()
            failures = 0
            while True:
                try:
                    async with self.source.link.within(self.source.build.timeout, "attaching"):
                        await self._attach_once(await self.source.link.session())
                    break
                except PymicroError as error:
                    if not failures:
                        self._log(logging.WARNING, "subscription not attached", error=str(error))
                failures += 1
                await self.source.build.clock.sleep(backoff(failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT))
            if failures:
                self._log(logging.INFO, "subscription attached again")

    async def _let_go(self) -> None:
        """End what is left of the former attachment."""
        session, self._session = self._session, None
        if session is not None:
            session.off_lost(self._broken.set)
            await session.forget(self._subscription)

    # handing out

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        while True:
            if self._closed:
                raise Closed("the consumer was closed")
            limit = min(max, self.source.prefetch - len(self._unsettled))
            if limit > 0 and self._here:
                return self._hand_out(min(limit, len(self._here)))
            if self._left and not self._here:
                raise Closed("the consumer was detached")
            self._news.clear()
            if limit > 0 and self.attached:
                await self._want(limit)
            await self._news.wait()

    def _hand_out(self, number: int) -> list[Delivery[Any]]:
        topic, here, deliveries, size = self.source.topic, self._here, [], 0
        for _ in range(number):
            message = here.popleft()
            size += len(message.data)
            try:
                content, key = envelope.read(message.data)
            except ValueError:  # not of Go Micro or pymicro: a body without headers
                content, key = Message(EMPTY, message.data), None
            delivery: Delivery[Any] = Delivery(
                topic=topic, message=content, key=key, count=self._handed_out(message), make_native=message.native
            )
            self._unsettled[delivery] = message
            deliveries.append(delivery)
        self._bytes -= size
        return deliveries

    def _handed_out(self, message: Arrived) -> int:
        """How often the message was delivered, this time included."""
        return 1

    def _arrived(self, message: Arrived) -> None:
        self._here.append(message)
        self._bytes += len(message.data)
        self._news.set()

    def _too_large(self, message: Arrived) -> bool:
        too_large = len(message.data) > self._longest
        if too_large:
            self._log(logging.ERROR, "message over the limit dropped", size=len(message.data))
        return too_large

    def _log(self, level: int, event: str, **fields: Any) -> None:
        log(self.source.build.logger, level, event, topic=self.source.topic, queue=self.source.queue, **fields)

    # leaving

    async def detach(self) -> None:
        if self._detached:
            return
        self._detached = True
        if self._keeper is not None:
            self._keeper.cancel()
        session = self._session
        try:
            if session is not None:
                async with asyncio.timeout(_LEAVE_TIME):
                    await session.release(self._subscription)
        except (TimeoutError, PymicroError):
            pass  # without an answer nothing more arrives either
        finally:
            self._left = True
            self._news.set()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._news.set()
        try:
            await self.detach()
            if self._keeper is not None:
                await asyncio.wait({self._keeper})
            await self._leave()
        finally:
            self._here.clear()
            self._unsettled.clear()
            self.source.closing(self)
            await self._let_go()

    async def _leave(self) -> None:
        session = self._tried
        try:
            async with asyncio.timeout(_LEAVE_TIME):
                if session is not None and not session.lost.is_set():
                    await self._give_back(session)
        except (TimeoutError, PymicroError) as error:
            self._log(logging.WARNING, "messages not given back", error=repr(error))
