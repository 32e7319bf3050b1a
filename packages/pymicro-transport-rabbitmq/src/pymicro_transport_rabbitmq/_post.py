"""Sending, and asking whether a queue exists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiormq import Channel
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp.commands import Basic, Queue

from pymicro.errors import BackendRefused
from pymicro_rabbitmq.connection import Link, close_channel, mapping, reason


class _Ask(Queue.Declare):
    """Asks for a queue. The names of the server's own queues for replies have signs that the driver does not know."""

    def validate(self) -> None:
        """Leave that to the server."""


class Post:
    """Sends all messages of a transport, on one channel, so that they arrive in their order.

    Nothing is confirmed: what was lost with a channel or a connection, nobody knows. So all sockets end with it.

    Args:
        link: the connection.
        exchange: through which Go peers are reached.
        limit: bytes of the largest body that the server takes.
        lost: called when the channel ended.
    """

    def __init__(self, link: Link, exchange: str, limit: int, lost: Callable[[], None]) -> None:
        self._link = link
        self._exchange = exchange
        self.limit = limit
        self._lost = lost
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._asker: AbstractChannel | None = None

    async def send(self, exchange: str, key: str, properties: Basic.Properties, body: bytes = b"") -> None:
        """Send after all that was sent before; returns when it is written.

        Raises:
            BackendUnavailable, BackendRefused: the connection ended, or cannot be had.
        """
        channel = self._channel
        if channel is None or channel.is_closed:
            channel = await self._open()
        with mapping(self._link.address):
            await channel.basic_publish(body, exchange=exchange, routing_key=key, properties=properties)

    async def exists(self, queue: str) -> bool:
        """Whether there is a queue of this name.

        Raises:
            BackendUnavailable, BackendRefused: it could not be asked.
        """
        async with self._asking:
            channel, self._asker = self._asker, None
            if channel is None or channel.is_closed:
                connection = await self._link.connection()
                with mapping(self._link.address):
                    channel = await connection.channel(publisher_confirms=False)
            with mapping(self._link.address):
                try:
                    await cast("Channel", channel).rpc(_Ask(queue=queue, passive=True))
                except ChannelNotFoundEntity:
                    return False
                except ChannelLockedResource:
                    return True  # it is there, for a connection of its own
                except BaseException:
                    await close_channel(channel)
                    raise
            self._asker = channel
            return True

    async def _open(self) -> AbstractChannel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                connection = await self._link.connection()
                with mapping(self._link.address):
                    channel = await connection.channel(publisher_confirms=False)
                    try:
                        await declare(channel, self._exchange)
                    except BaseException:
                        await close_channel(channel)
                        raise
                self._channel = channel
                channel.closing.add_done_callback(lambda _: self._lost())
            return self._channel

    async def aclose(self) -> None:
        """Close the channels; bounded in time. What was sent before has left."""
        for channel in (self._channel, self._asker):
            if channel is not None and not channel.is_closed:
                await close_channel(channel)


async def declare(channel: AbstractChannel, exchange: str) -> None:
    """Have the exchange as Go Micro's transport has it.

    Raises:
        BackendRefused: there is one of this name that is of another kind.
    """
    try:
        await channel.exchange_declare(exchange, exchange_type="topic")
    except ChannelPreconditionFailed as error:
        raise BackendRefused(
            f"exchange {exchange!r} exists with other properties; choose another with --transport_rabbitmq_exchange, "
            f"or delete it: {reason(error)}"
        ) from error
