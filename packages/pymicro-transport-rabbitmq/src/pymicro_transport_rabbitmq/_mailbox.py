"""Queues of this process, and the sockets whose messages come in there."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from aiormq.abc import AbstractChannel, DeliveredMessage

from pymicro.errors import BackendUnavailable, ConnectionFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import backoff, log
from pymicro_rabbitmq.connection import Link, bounded, close_channel, mapping
from pymicro_transport_rabbitmq import _wire
from pymicro_transport_rabbitmq._post import declare
from pymicro_transport_rabbitmq._socket import RabbitmqSocket
from pymicro_transport_rabbitmq._wire import Parcel

_FIRST_WAIT: Final = 0.05  # seconds before the queues are asked for again
_LONGEST_WAIT: Final = 1.0

#: What becomes of a message that belongs to no socket.
Strange = Callable[["Mailbox", Parcel], Awaitable[None]]


class Mailbox:
    """A queue of a name that nobody had before, and for a listener the one of its address, on a channel of their own.

    When the channel ends the sockets are lost, and it attaches again, with a new queue: so a queue that exists is that
    of a peer that still knows the sockets.

    Args:
        link: the connection.
        build: clock, logger, time-out.
        strange: takes messages that belong to no socket.
        address: of a listener; empty for none.
        exchange: through which Go peers send to the address.
    """

    def __init__(self, link: Link, build: Build, strange: Strange, address: str = "", exchange: str = "") -> None:
        self.sockets: dict[str, RabbitmqSocket] = {}
        self.queue = ""
        self._link = link
        self._build = build
        self._strange = strange
        self._address = address
        self._exchange = exchange
        self._channel: AbstractChannel | None = None
        self._consumers: list[str] = []
        self._ended = asyncio.Event()
        self._attaching = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._failing = False

    def forget(self, socket: RabbitmqSocket) -> None:
        """It ended."""
        if self.sockets.get(socket.id) is socket:
            del self.sockets[socket.id]

    async def attach(self) -> None:
        """Be attached, and stay so from then on. Bound it in time.

        Raises:
            BackendUnavailable, BackendRefused: it is not possible.
        """
        async with self._attaching:
            if self._channel is None:
                self._channel = await self._attach()
            if self._keeper is None:
                name = f"rabbitmq mailbox {self._address or self.queue}"
                self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=name)

    async def _attach(self) -> AbstractChannel:
        connection = await self._link.connection(patient=self._keeper is not None)
        with mapping(self._link.address):
            channel = await connection.channel(publisher_confirms=False)
            try:
                self._consumers = []
                self.queue = f"pymicro.{uuid.uuid4().hex}"
                await self._consume(channel, self.queue)
                if self._address:
                    await self._listen(channel)
            except BaseException:
                await close_channel(channel)
                raise
        self._ended = ended = asyncio.Event()
        channel.closing.add_done_callback(lambda _: ended.set())
        channel.on_consumer_cancel_callbacks.add(lambda _: ended.set())
        return channel

    async def _consume(self, channel: AbstractChannel, queue: str) -> None:
        # An exclusive consumer: who listens at an address that is taken is refused. The queue itself is as in Go.
        await channel.queue_declare(queue, auto_delete=True)
        consumed = await channel.basic_consume(queue, self._take, no_ack=True, exclusive=True)
        self._consumers.append(consumed.consumer_tag or "")

    async def _listen(self, channel: AbstractChannel) -> None:
        await declare(channel, self._exchange)
        await self._consume(channel, self._address)
        await channel.queue_bind(self._address, self._exchange, routing_key=self._address)

    async def _keep(self) -> None:
        failures = 0
        while True:
            await self._ended.wait()
            async with self._attaching:
                await self._detach()
                try:
                    async with asyncio.timeout(self._build.timeout):
                        self._channel = await self._attach()
                except (ConnectionFailed, TimeoutError) as error:
                    self._fail(error)
                else:
                    failures = 0
                    self._recover()
                    continue
            failures += 1
            await self._build.clock.sleep(backoff(failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT))

    async def _detach(self) -> None:
        channel, self._channel = self._channel, None
        self.lose("the connection to RabbitMQ was lost")
        if channel is not None:
            await close_channel(channel)

    def renew(self) -> None:
        """Attach again, with a new queue: nothing can be sent for the sockets that there are."""
        self._ended.set()

    def lose(self, why: str) -> None:
        """All sockets are lost."""
        for socket in [*self.sockets.values()]:
            socket.lose(why)

    async def _take(self, message: DeliveredMessage) -> None:
        parcel = _wire.parcel(message.header.properties, message.body)
        socket = self.sockets.get(parcel.socket)
        if socket is not None:
            socket.arrived(parcel)
            return
        with suppress(ConnectionFailed):  # then there is nobody to be answered any more
            await self._strange(self, parcel)

    def _fail(self, error: Exception) -> None:
        # Of a connection that is lost the link tells; of a server that is there and does not let listen, this.
        if self._link.connected and not self._failing:
            self._failing = True
            log(self._build.logger, logging.WARNING, "cannot listen", address=self._address, error=str(error))

    def _recover(self) -> None:
        if self._failing:
            self._failing = False
            log(self._build.logger, logging.INFO, "listens again", address=self._address)

    async def aclose(self) -> None:
        """End the queues, which do not outlive their consumers. Bounded in time. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        channel, self._channel = self._channel, None
        if channel is None or channel.is_closed:
            return
        for consumer in self._consumers:
            await bounded(channel.basic_cancel(consumer))
        await close_channel(channel)


def late(link: Link) -> BackendUnavailable:
    """What a time-out while attaching means."""
    return BackendUnavailable("no answer in time", link.address) if link.connected else link.unavailable()
