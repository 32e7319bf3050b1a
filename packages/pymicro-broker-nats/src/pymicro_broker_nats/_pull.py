"""Consumers of JetStream: they ask for messages, and the server remembers what became of each."""

from __future__ import annotations

import asyncio
import functools
import logging
import weakref
from contextlib import suppress
from typing import Any, Final

import msgspec

from pymicro.broker import Delivery, Reject, Retry, Settlement
from pymicro.errors import BackendUnavailable
from pymicro_broker_nats import _wire
from pymicro_broker_nats._consumer import NatsConsumer, Source
from pymicro_broker_nats._jetstream import JetStream, PullConsumerInfo
from pymicro_broker_nats._options import NatsSubscription
from pymicro_nats.connection import Arrived, Session

_NANO: Final = 1_000_000_000

#: Seconds for which a request for messages holds, and more until its end must have been told.
_EXPIRES: Final = 10.0
_GRACE: Final = 2.0

_ACK: Final = b"+ACK"
_NAK: Final = b"-NAK"
_TERM: Final = b"+TERM"
_PROGRESS: Final = b"+WPI"


class PullConsumer(NatsConsumer):
    """Asks for what the dispatcher has room for, and for no more.

    The messages of a request that a cancelled `receive` leaves behind arrive and wait here for the next one.
    """

    def __init__(self, source: Source, jetstream: JetStream, native: NatsSubscription) -> None:
        super().__init__(source)
        self._jetstream = jetstream
        self._native = native
        self._telling = source.build.timeout, f"settling of {source.topic!r}"
        self._own_name = _wire.new_id()
        self._info: PullConsumerInfo | None = None
        self._inbox = ""
        self._asked = 0
        self._deadline = 0.0
        #: When each message that waits here arrived.
        self._times: dict[int, float] = {}
        #: Of deliveries that could not be settled: they may be settled again.
        self._untold: weakref.WeakKeyDictionary[Delivery[Any], Arrived] = weakref.WeakKeyDictionary()

    # attaching

    async def _attach(self, session: Session) -> Any:
        source, former = self.source, self._info
        info = await self._jetstream.consumer(session, source.topic, source.queue, self._own_name, self._native)
        if info.made and former is not None:
            self._log(logging.WARNING, "the server had forgotten the subscription, messages may be lost")
        inbox = session.new_inbox()
        subscription = await session.take(inbox, "", functools.partial(self._arrived_at, inbox))
        self._info, self._inbox, self._asked = info, inbox, 0
        self.lease = info.lease
        return subscription

    async def _until_broken(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_GRACE):
                    await self._broken.wait()
                return
            except TimeoutError:
                # The end of each request is told; if it was not, nobody knows of the request.
                if self._asked and self._now() > self._deadline:
                    self._broken.set()

    # asking

    async def _want(self, number: int) -> None:
        missing = number - self._asked - len(self._here)
        if missing <= 0 or (self._asked and 2 * missing < number):
            return
        session, info = self._session, self._info
        assert session is not None
        assert info is not None
        self._asked += missing
        self._deadline = self._now() + _EXPIRES + _GRACE
        request = msgspec.json.encode({"batch": missing, "expires": int(_EXPIRES * _NANO)})
        try:
            await session.send(f"$JS.API.CONSUMER.MSG.NEXT.{info.stream}.{info.name}", request, reply=self._inbox)
        except BackendUnavailable:
            self._broken.set()

    def _arrived_at(self, inbox: str, message: Arrived) -> None:
        current = inbox == self._inbox
        if not message.reply:
            if current:
                self._told(message.native().headers or {})
            return
        if current:
            self._asked = max(0, self._asked - 1)
        if self._too_large(message):
            self._put_quietly(message, _TERM)
            self._news.set()
            return
        self._times[id(message)] = self._now()
        self._arrived(message)

    def _told(self, headers: dict[str, str]) -> None:
        """The server says something of a request."""
        status = headers.get("Status")
        if status == "100":
            return
        if status == "408" and "Nats-Pending-Messages" in headers:
            self._asked = max(0, self._asked - int(headers["Nats-Pending-Messages"]))
            self._news.set()
        else:
            self._broken.set()

    def _now(self) -> float:
        return self.source.build.clock.monotonic()

    # handing out

    async def receive(self, max: int) -> Any:
        self._refresh()
        return await super().receive(max)

    def _refresh(self) -> None:
        """Hold what waits here for long, and forget what is another's by now."""
        lease, now = self.lease or 0.0, self._now()
        for message in [message for message in self._here if now - self._times[id(message)] > lease / 3]:
            if now - self._times[id(message)] > lease:
                self._here.remove(message)
                self._bytes -= len(message.data)
                del self._times[id(message)]
            else:
                self._times[id(message)] = now
                self._put_quietly(message, _PROGRESS)

    def _handed_out(self, message: Arrived) -> int:
        self._times.pop(id(message), None)
        parts = message.reply.split(b".")
        # `$JS.ACK.<stream>.<consumer>.<delivered>...`, and since 2.11 with a domain and an account before the stream
        return int(parts[4] if len(parts) < 11 else parts[6])

    # settling

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        message = self._unsettled.pop(delivery, None) or self._untold.pop(delivery, None)
        if message is None:
            return
        self._news.set()
        try:
            if self._closed:
                raise BackendUnavailable("the consumer was closed and the message went back to its queue")
            await self._tell(message, _verb(settlement))
        except BaseException:
            self._untold[delivery] = message
            raise

    async def extend(self, delivery: Delivery[Any]) -> None:
        message = self._unsettled.get(delivery)
        if message is not None:
            await self._tell(message, _PROGRESS)

    async def _tell(self, message: Arrived, verb: bytes) -> None:
        session = self.source.link.ready
        if session is not None:
            await session.publish(_answer_to(message), verb, self._telling)
            return
        async with self.source.link.within(*self._telling):
            session = await self.source.link.session()
            await session.publish(_answer_to(message), verb)

    def _put_quietly(self, message: Arrived, verb: bytes) -> None:
        session = self._session
        if session is not None and not (session.congested or session.lost.is_set()):
            with suppress(BackendUnavailable):  # the server delivers it again
                session.put(_answer_to(message), verb)

    async def _give_back(self, session: Session) -> None:
        if not self.source.queue:
            await self._jetstream.delete_consumer(session, self.source.topic, self._own_name)
            return
        messages = [*self._unsettled.values(), *self._here]
        for message in messages:
            await session.send(_answer_to(message), _NAK)
        if messages:
            await session.confirm()

    async def aclose(self) -> None:
        self._untold.update(self._unsettled)
        await super().aclose()


def _answer_to(message: Arrived) -> str:
    # If a faulty network changed it, the answer goes nowhere, and the message comes again.
    return message.reply.decode(errors="replace")


def _verb(settlement: Settlement) -> bytes:
    if isinstance(settlement, Retry):
        return _NAK if settlement.delay <= 0 else _NAK + b' {"delay": %d}' % int(settlement.delay * _NANO)
    return _TERM if isinstance(settlement, Reject) else _ACK
