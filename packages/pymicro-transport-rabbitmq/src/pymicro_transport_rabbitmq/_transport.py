"""Sockets through queues of a RabbitMQ server."""

from __future__ import annotations

import asyncio
import socket as _socket
import uuid
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError, ConnectionFailed, DialFailed
from pymicro.plugins import Build
from pymicro.record import Node
from pymicro.transport import Accept, Listener, Socket, Transport
from pymicro_rabbitmq import check_key
from pymicro_rabbitmq.connection import Access
from pymicro_transport_rabbitmq import _wire
from pymicro_transport_rabbitmq._listener import RabbitmqListener
from pymicro_transport_rabbitmq._mailbox import Mailbox, late
from pymicro_transport_rabbitmq._options import RabbitmqTransportOptions
from pymicro_transport_rabbitmq._post import Post
from pymicro_transport_rabbitmq._socket import Ends, RabbitmqSocket
from pymicro_transport_rabbitmq._wire import Parcel

#: In the metadata of a node: it answers `_wire.OPEN`.
_KEY: Final = "rabbitmq_sockets"
_VERSION: Final = "1"

#: Seconds without a message after which the socket of a Go peer, which never says goodbye, is given up. As in Go Micro.
_IDLE: Final = 60.0


class RabbitmqTransport(Transport):
    """A listener is a queue whose name is its address, as in Go Micro's plugin `transport/rabbitmq`.

    All sockets share one connection. Between pymicro's peers a socket is opened and closed by messages, and a sender
    waits when its peer has not taken enough; a Go peer does neither. Either way the queue of a peer that is gone is
    gone, too, which is looked at every `check_interval` seconds.

    Args:
        options: see `RabbitmqTransportOptions`; None for the defaults.
        build: addresses, TLS, limits, clock, logger, time-out.

    Raises:
        ConfigurationError: an address has no form that is known.
    """

    name = "rabbitmq"
    node_metadata: Mapping[str, str] = MappingProxyType({_KEY: _VERSION})

    def __init__(self, options: RabbitmqTransportOptions | None = None, build: Build | None = None) -> None:
        self._options = options or RabbitmqTransportOptions()
        build = build or Build()
        self._build = build
        self._access = Access("transport", self._options, build)
        self._link = self._access.link("calls")
        self._post = Post(self._link, self._options.exchange, self._options.server_limit, self._renew)
        self._mailbox = Mailbox(self._link, build, self._strange)
        self._listeners: set[RabbitmqListener] = set()
        #: Addresses that existed since the last look; if one is gone meanwhile, the next look ends what dials it.
        self._seen: set[str] = set()
        self._watcher: asyncio.Task[None] | None = None

    async def _open(self) -> None:
        """Read the TLS files. The connection is made when it is needed.

        Raises:
            ConfigurationError: a file is missing, or is not what it should be.
        """
        self._access.open()

    # Dialling

    async def dial(self, node: Node, *, timeout: float) -> Socket:
        self.require_open()
        address = node.address
        socket: RabbitmqSocket | None = None
        try:
            async with asyncio.timeout(timeout):
                if not address:
                    raise DialFailed("a node of the RabbitMQ transport has the name of a queue as its address")
                check_key("address", address)
                await self._mailbox.attach()
                self._watch()
                own = node.metadata.get(_KEY) == _VERSION
                socket = self._new(address, own=own)
                await self._find(address)
                if own:
                    await socket.open()
                if not socket.connected:
                    raise DialFailed("RabbitMQ: the connection was lost meanwhile", address)
                return socket
        except BaseException as error:
            if socket is not None:
                await socket.aclose()
            if isinstance(error, TimeoutError):
                raise DialFailed(f"RabbitMQ: {late(self._link)}", address) from error
            if isinstance(error, ConnectionFailed) and not isinstance(error, DialFailed):
                raise DialFailed(f"RabbitMQ: {error}", address) from error
            raise

    async def _find(self, address: str) -> None:
        if address in self._seen:
            return
        if not await self._post.exists(address):
            raise DialFailed("nobody listens at this queue", address)
        self._seen.add(address)

    def _new(self, address: str, *, own: bool) -> RabbitmqSocket:
        ends = Ends(self._mailbox.queue, exchange="" if own else self._options.exchange, key=address, terms=None)
        build = self._build
        socket = RabbitmqSocket(str(uuid.uuid4()), ends, self._post, build.limits, build.clock, self._forget)
        self._mailbox.sockets[socket.id] = socket
        return socket

    def _forget(self, socket: RabbitmqSocket) -> None:
        self._seen.discard(socket.remote)
        self._mailbox.forget(socket)

    async def _strange(self, mailbox: Mailbox, parcel: Parcel) -> None:
        if parcel.kind in (_wire.ACCEPT, _wire.DATA) and parcel.reply_to:
            await self._post.send("", parcel.reply_to, _wire.properties(parcel.socket, "", {}, _wire.CLOSE))

    # Listening

    async def listen(self, address: str, accept: Accept, *, sock: _socket.socket | None = None) -> Listener:
        self.require_open()
        if sock is not None:
            raise ConfigurationError("the RabbitMQ transport has no sockets to be handed down")
        if not address or address.endswith(":0"):
            address = str(uuid.uuid4())
        listener = RabbitmqListener(address, self._options.exchange, accept, self._link, self._post, self._build)
        try:
            check_key("address", address)
            async with asyncio.timeout(self._build.timeout):
                await listener.mailbox.attach()
        except BaseException as error:
            await listener.aclose()
            if isinstance(error, TimeoutError):
                raise late(self._link) from error
            if isinstance(error, BackendRefused):
                raise ConfigurationError(f"RabbitMQ does not let listen at {address!r}: {error.detail}") from error
            raise
        self._listeners.add(listener)
        self._watch()
        return listener

    # Peers that are gone

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._look_after(), name="rabbitmq peers")

    async def _look_after(self) -> None:
        while True:
            await self._build.clock.sleep(self._options.check_interval)
            with suppress(BackendUnavailable, BackendRefused):  # the sockets end with the connection
                await self._look()

    async def _look(self) -> None:
        self._seen.clear()
        self._end_idle()
        peers: dict[str, list[RabbitmqSocket]] = {}
        for socket in self._sockets():
            peers.setdefault(socket.ends.peer, []).append(socket)
        for queue, sockets in peers.items():
            if not await self._post.exists(queue):
                for socket in sockets:
                    socket.lose("the peer is gone")

    def _end_idle(self) -> None:
        """A Go client says nothing when it is done with a socket."""
        before = self._build.clock.monotonic() - _IDLE
        for listener in self._listeners:
            for socket in [*listener.mailbox.sockets.values()]:
                if socket.ends.terms is None and socket.waits_since is not None and socket.waits_since < before:
                    socket.lose("the peer said nothing for a long time")

    def _sockets(self) -> list[RabbitmqSocket]:
        return [socket for mailbox in self._mailboxes() for socket in mailbox.sockets.values()]

    def _mailboxes(self) -> list[Mailbox]:
        return [self._mailbox, *(listener.mailbox for listener in self._listeners)]

    def _renew(self) -> None:
        """What was sent last may be lost, so no socket is sound. Peers find the queues gone."""
        for mailbox in self._mailboxes():
            mailbox.renew()

    # The end

    async def _close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        await asyncio.gather(*(listener.aclose() for listener in self._listeners))
        await asyncio.gather(*(socket.aclose() for socket in self._sockets()))
        await self._mailbox.aclose()
        await self._post.aclose()
        await self._link.aclose()
