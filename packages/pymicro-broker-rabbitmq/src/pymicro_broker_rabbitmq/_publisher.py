"""Publishing with confirms, through outages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelPreconditionFailed
from pamqp.commands import Basic

from pymicro.errors import BackendUnavailable, TooLarge
from pymicro.message import Message
from pymicro.plugins.toolkit import backoff
from pymicro_broker_rabbitmq import _wire
from pymicro_broker_rabbitmq._options import RabbitmqSubscription
from pymicro_broker_rabbitmq._topology import Topology
from pymicro_rabbitmq.connection import Link, close_channel, mapping

_FIRST_WAIT: Final = 0.05  # seconds before a message is published again
_LONGEST_WAIT: Final = 1.0
_BLOCKED: Final = "the server is short of memory or disk, and takes nothing until it has some again"
_UNDRAINED: Final = 256 * 1024  # bytes that may be written before it is waited until the server reads
_TOO_LARGE: Final = re.compile(r"message size (\d+) is larger")


class Publisher:
    """Publishes on one channel of a link, which it opens anew when it ended.

    Args:
        link: the connection.
        topology: the exchange.
    """

    def __init__(self, link: Link, topology: Topology) -> None:
        self._link = link
        self._topology = topology
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._undrained = 0

    async def publish(self, topic: str, message: Message, key: str | None, timeout: float, *, keep: bool) -> None:
        """Publish, and wait until the server confirms; with `keep` that it is in a queue.

        A message whose connection ended before it was confirmed is published again, so it may arrive twice.

        Raises:
            BackendUnavailable, BackendRefused, TooLarge: as in `Broker.publish`.
        """
        properties = _wire.properties(topic, message, key, persistent=self._topology.durable)
        body = bytes(message.body)
        error: BackendUnavailable | None = None
        failures = 0
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await self._publish(topic, body, properties, keep=keep)
                        return
                    except BackendUnavailable as failure:
                        error = failure
                    failures += 1
                    await asyncio.sleep(backoff(failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT))
        except TimeoutError as late:
            why = error if error is not None and self._link.connected else self._link.unavailable()
            if await self._link.blocked():
                why = BackendUnavailable(_BLOCKED, self._link.address)
            raise BackendUnavailable(f"not confirmed within {timeout:.3g} s: {why.detail}", why.address) from late

    async def _publish(self, topic: str, body: bytes, properties: Basic.Properties, *, keep: bool) -> None:
        if await self._routed(topic, body, properties, mandatory=keep) or not keep:
            return
        await self._have_queue(topic)
        if not await self._routed(topic, body, properties, mandatory=True):
            raise BackendUnavailable("the queue that was made for the message is gone", self._link.address)

    async def _routed(self, topic: str, body: bytes, properties: Basic.Properties, *, mandatory: bool) -> bool:
        channel: Any = await self._ready()  # its abstract class does not have `wait`
        # Each message is confirmed. To wait for the network, too, lets the channel send only one at a time.
        self._undrained += len(body) + _wire.FRAMES
        drain = self._undrained > _UNDRAINED
        with mapping(self._link.address), _sized(body):
            confirmed = await channel.basic_publish(
                body,
                exchange=self._topology.exchange,
                routing_key=topic,
                properties=properties,
                mandatory=mandatory,
                wait=drain,
            )
        if drain:
            self._undrained = 0
        return not isinstance(confirmed, DeliveredMessage)  # a message that no queue wants comes back

    async def _have_queue(self, topic: str) -> None:
        """Have a queue that keeps what is published to a topic, on a channel that a refusal may close."""
        connection = await self._link.connection()
        with mapping(self._link.address):
            channel = await connection.channel(publisher_confirms=False)
            try:
                queue = self._topology.queue(topic, topic, RabbitmqSubscription())
                await self._topology.declare_queue(channel, queue)
                await channel.queue_bind(queue.name, self._topology.exchange, routing_key=topic)
            finally:
                await close_channel(channel)

    async def _ready(self) -> AbstractChannel:
        channel = self._channel
        if channel is not None and not channel.is_closed:
            return channel
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._open()
            return self._channel

    async def _open(self) -> AbstractChannel:
        connection = await self._link.connection()
        with mapping(self._link.address):
            channel = await connection.channel(publisher_confirms=True, on_return_raises=False)
            try:
                await self._topology.declare_exchange(channel)
            except BaseException:
                await close_channel(channel)
                raise
        return channel


@contextmanager
def _sized(body: bytes) -> Iterator[None]:
    """Tell the message that the server found too large from those that waited on the channel which it closed then."""
    try:
        yield
    except ChannelPreconditionFailed as error:
        said = _TOO_LARGE.search(str(error))
        if said is None:
            raise
        if int(said[1]) == len(body):
            raise TooLarge(f"message of {len(body)} bytes is over the server's limit") from error
        raise BackendUnavailable("the channel was closed on account of another message") from error
