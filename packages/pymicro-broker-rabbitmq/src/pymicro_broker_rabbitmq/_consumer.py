"""Consuming: a queue of the server, seen as a source of deliveries."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from aio_pika import IncomingMessage
from aiormq.abc import AbstractChannel, DeliveredMessage

from pymicro.broker import Ack, Consumer, Delivery, Retry, Settlement
from pymicro.errors import BackendUnavailable, Closed, ConnectionFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import backoff, log
from pymicro_broker_rabbitmq import _wire
from pymicro_broker_rabbitmq._topology import Queue, Topology
from pymicro_rabbitmq.connection import Link, bounded, close_channel, mapping

_FIRST_WAIT: Final = 0.1  # seconds before the queue is asked for again
_LONGEST_WAIT: Final = 1.0
_MOST_PREFETCH: Final = 65535  # what the protocol can say


class RabbitmqConsumer(Consumer):
    """Consumes one queue on a channel of its own, and attaches again by itself.

    A delivery belongs to the channel that it came on: when that ends, the server hands it out again, and settling it
    here has no meaning any more. The queue of a subscription without a name ends with its connection, so what it
    had is handed out from here, and what is retried comes again without the server.

    Args:
        link: the connection.
        topology: the exchange.
        topic: what the queue is bound to.
        queue: the queue.
        prefetch: how many deliveries may be unsettled.
        arguments: for consuming.
        build: clock, logger, limits and time-out.
        forget: called when it is closed.
    """

    def __init__(
        self,
        link: Link,
        topology: Topology,
        topic: str,
        queue: Queue,
        prefetch: int,
        arguments: Mapping[str, Any],
        build: Build,
        forget: Callable[[RabbitmqConsumer], None],
    ) -> None:
        self.topic = topic
        self.queue = queue
        self._link = link
        self._topology = topology
        self._prefetch = prefetch
        self._arguments = dict(arguments)
        self._build = build
        self._forget = forget
        self._private = queue.exclusive
        self._attachment: _Attachment | None = None
        self._inbox: deque[Delivery[Any]] = deque()
        #: Where the unsettled deliveries came from; those of the inbox too.
        self._origins: dict[Delivery[Any], tuple[_Attachment, int]] = {}
        self._given_back: weakref.WeakSet[Delivery[Any]] = weakref.WeakSet()
        self._wakened = asyncio.Event()
        self._failing = False
        self._strange = False
        self._detached = False
        self._closed = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def attached(self) -> bool:
        return self._attachment is not None and not self._attachment.ended.done() and not self._detached

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        while True:
            if self._closed:
                raise Closed("the consumer was closed")
            if self._inbox:
                return [self._inbox.popleft() for _ in range(min(max, len(self._inbox)))]
            if self._detached:
                raise Closed("the consumer was detached")
            self._wakened.clear()
            await self._wakened.wait()

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        origin = self._origins.pop(delivery, None)
        if origin is None:
            if delivery in self._given_back:
                raise BackendUnavailable("the message went back to its queue, and comes again", self._link.address)
            return
        if self._private and isinstance(settlement, Retry):
            self._hand_out_again(delivery, origin)
            return
        attachment, tag = origin
        if self._private and attachment.ended.done():
            return  # its queue is gone: there is nobody to tell
        try:
            async with asyncio.timeout(self._build.timeout):
                with mapping(self._link.address):
                    if isinstance(settlement, Ack):
                        # No answer comes, so there is nothing to wait for; `prefetch` bounds how many are written.
                        await attachment.channel.basic_ack(tag, wait=False)
                    else:
                        # Not `nack`: from RabbitMQ 4.3 on that is not counted as a delivery that failed.
                        await attachment.channel.basic_reject(tag, requeue=isinstance(settlement, Retry))
        except BaseException as error:
            attachment.end()  # it is not known to have been told: the server shall hand the message out again
            if isinstance(error, TimeoutError):
                raise BackendUnavailable("no answer in time", self._link.address) from error
            raise

    def _hand_out_again(self, delivery: Delivery[Any], origin: tuple[_Attachment, int]) -> None:
        again = Delivery[Any](
            topic=delivery.topic,
            message=delivery.message,
            key=delivery.key,
            count=delivery.count + 1,
            native=delivery.native,
        )
        self._origins[again] = origin
        self._inbox.append(again)
        self._wakened.set()

    async def extend(self, delivery: Delivery[Any]) -> None:
        """Nothing to do: a delivery is held for as long as the channel lives."""

    async def detach(self) -> None:
        if self._detached:
            return
        self._detached = True
        self._wakened.set()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        attachment = self._attachment
        if attachment is not None and not attachment.ended.done():
            await bounded(attachment.channel.basic_cancel(attachment.tag))
        self._wakened.set()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self.detach()
        finally:
            self._give_back()
            self._forget(self)
            self._wakened.set()
            attachment, self._attachment = self._attachment, None
            if attachment is not None:
                attachment.end()
                await close_channel(attachment.channel)

    # Attaching

    async def attach(self) -> None:
        """Attach for the first time, and stay so.

        Raises:
            BackendUnavailable, BackendRefused: it was not possible.
        """
        self._attachment = await self._attach(patient=False)
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"rabbitmq consumer {self.topic}")

    async def _attach(self, *, patient: bool = True) -> _Attachment:
        connected = False
        try:
            async with asyncio.timeout(self._build.timeout):
                connection = await self._link.connection(patient=patient)
                connected = True
                with mapping(self._link.address):
                    channel = await connection.channel(publisher_confirms=False)
                    try:
                        return await self._consume(channel)
                    except BaseException:
                        await close_channel(channel)
                        raise
        except TimeoutError as error:
            if connected:
                raise BackendUnavailable("no answer in time", self._link.address) from error
            raise self._link.unavailable() from error

    async def _consume(self, channel: AbstractChannel) -> _Attachment:
        await channel.basic_qos(prefetch_count=min(self._prefetch, _MOST_PREFETCH))
        await self._topology.declare_exchange(channel)
        name = await self._topology.declare_queue(channel, self.queue)
        attachment = _Attachment(channel)

        async def take(message: DeliveredMessage) -> None:
            await self._take(attachment, message)

        # In this order, as Go Micro does: a queue that deletes itself does so only once it had a consumer, and one
        # that is not bound yet gathers nothing when this is cancelled.
        consumed = await channel.basic_consume(name, take, arguments=self._arguments)
        attachment.tag = consumed.consumer_tag or ""
        await channel.queue_bind(name, self._topology.exchange, routing_key=self.topic)
        return attachment

    async def _keep(self) -> None:
        failures = 0
        while True:
            if self._attachment is not None:
                await asyncio.wait([self._attachment.ended])
                await self._lose(self._attachment)
            try:
                self._attachment = await self._attach()
            except ConnectionFailed as error:
                self._fail(error)
                failures += 1
                await self._build.clock.sleep(backoff(failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT))
            else:
                failures = 0
                self._recover()

    async def _lose(self, attachment: _Attachment) -> None:
        self._attachment = None
        if not self._private:
            self._give_back()
        await close_channel(attachment.channel)

    def _give_back(self) -> None:
        self._given_back.update(self._origins)
        self._origins.clear()
        self._inbox.clear()

    def _fail(self, error: ConnectionFailed) -> None:
        # Of a connection that is lost the link tells; of a server that is there and does not let consume, this.
        if self._link.connected and not self._failing:
            self._failing = True
            log(self._build.logger, logging.WARNING, "cannot consume", topic=self.topic, error=str(error))

    def _recover(self) -> None:
        if self._failing:
            self._failing = False
            log(self._build.logger, logging.INFO, "consumes again", topic=self.topic)

    # Messages

    async def _take(self, attachment: _Attachment, message: DeliveredMessage) -> None:
        delivery = self._delivery(message)
        tag = message.delivery_tag or 0
        if len(message.body) > self._build.limits.message:
            log(
                self._build.logger,
                logging.ERROR,
                "event refused: it is over the limit",
                topic=delivery.topic,
                size=len(message.body),
                limit=self._build.limits.message,
            )
            with mapping(self._link.address):
                await attachment.channel.basic_reject(tag, requeue=False)
            return
        if self._closed or attachment.ended.done():
            return  # it goes back with its channel
        self._warn_of_strangers(delivery.topic)
        self._origins[delivery] = attachment, tag
        self._inbox.append(delivery)
        self._wakened.set()

    def _delivery(self, message: DeliveredMessage) -> Delivery[Any]:
        topic = message.routing_key or ""
        properties = message.header.properties
        content, key = _wire.read(topic, properties, message.body)
        return Delivery(
            topic=topic,
            message=content,
            key=key,
            count=_wire.count(properties, redelivered=bool(message.redelivered)),
            make_native=partial(IncomingMessage, message),
        )

    def _warn_of_strangers(self, topic: str) -> None:
        if topic != self.topic and not self._strange:
            self._strange = True
            log(
                self._build.logger,
                logging.WARNING,
                "the queue has events of another topic too",
                topic=self.topic,
                queue=self.queue.name,
                other=topic,
            )


class _Attachment:
    """A channel that consumes.

    Attributes:
        channel: the channel.
        tag: of its consumer.
        ended: done when nothing comes on it any more: the connection, the channel or the queue ended, or `end` said so.
    """

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.tag = ""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        channel.closing.add_done_callback(lambda _: self.end())
        channel.on_consumer_cancel_callbacks.add(lambda _: self.end())

    def end(self) -> None:
        """No more of it. What is unsettled goes back to the queue when the channel is closed."""
        if not self.ended.done():
            self.ended.set_result(None)
