"""The transport on NATS: dialling and listening."""

from __future__ import annotations

import asyncio
import socket as _socket
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pymicro.errors import BackendRefused, BackendUnavailable, Closed, ConfigurationError, DialFailed, PymicroError
from pymicro.plugins import Build
from pymicro.record import Node
from pymicro.transport import Accept, Listener, Socket, Transport
from pymicro_nats import check_subject, open_link
from pymicro_transport_nats._options import NatsTransportOptions

if TYPE_CHECKING:
    from pymicro_nats.connection import Link
    from pymicro_transport_nats._hub import Hub
    from pymicro_transport_nats._listener import NatsListener

#: What the metadata of nodes says that take frames.
FRAMES_KEY: Final = "frames"
FRAMES_VERSION: Final = "1"

#: Seconds for what was said last to reach the server.
_CLOSE_TIME: Final = 1.0


class NatsTransport(Transport):
    """Sockets over subjects of NATS: a node's address is the subject at which it listens.

    Follows go-micro `transport/nats/nats.go`; between pymicro peers with frames, see `_frames`. It connects when it is
    first used, and many sockets share one connection.

    Args:
        options: see `NatsTransportOptions`; None for the defaults.
        build: addresses of servers, TLS, limits, clock and logger.
    """

    name = "nats"

    def __init__(self, options: NatsTransportOptions | None = None, build: Build | None = None) -> None:
        self._options = options or NatsTransportOptions()
        self._build = build or Build()
        if self._options.frames:
            self.node_metadata = {FRAMES_KEY: FRAMES_VERSION}
        self._link: Link | None = None
        self._hub: Hub | None = None
        self._connecting = asyncio.Lock()
        self._listeners: weakref.WeakSet[NatsListener] = weakref.WeakSet()

    async def _open(self) -> None:
        self._link = await open_link(self._options, self._build)

    async def _connect(self) -> Hub:
        """The sockets of the connection that works now. Bound it in time.

        Raises:
            BackendUnavailable, BackendRefused: there is none.
        """
        from pymicro_transport_nats._hub import Hub

        assert self._link is not None
        session = await self._link.session()
        if self._hub is not None and self._hub.session is session:
            return self._hub
        async with self._connecting:
            former = self._hub
            if former is not None and former.session is session:
                return former
            hub = Hub(session, self._build, self._options)
            await hub.start()
            self._hub = hub
            if former is not None:
                await former.aclose()
            return hub

    async def dial(self, node: Node, *, timeout: float) -> Socket:
        self.require_open()
        address = node.address
        try:
            check_subject(address, "address")
            async with asyncio.timeout(timeout):
                socket = await self._open_socket(node)
        except TimeoutError as error:
            raise DialFailed(f"no answer through NATS within {timeout:g} s", address) from error
        except (ConfigurationError, BackendUnavailable, BackendRefused) as error:
            raise DialFailed(str(error), address) from error
        if not self.is_open:
            await socket.aclose()
            raise Closed("the transport was closed")
        return socket

    async def _open_socket(self, node: Node) -> Socket:
        from pymicro_nats.connection import unanswered
        from pymicro_transport_nats._frames import ASK, FRAME, PONG, SIZE
        from pymicro_transport_nats._hub import FRAMES

        hub = await self._connect()
        if not self._options.frames or node.metadata.get(FRAMES_KEY) != FRAMES_VERSION:
            return hub.open_plain(node.address)
        answer = await hub.session.request(node.address + FRAMES, ASK)
        if unanswered(answer):
            raise DialFailed("nobody listens at this subject", node.address)
        if len(answer.data) < SIZE:
            raise DialFailed("what listens at this subject is no pymicro node", node.address)
        kind, window, accepting = FRAME.unpack_from(answer.data)
        if kind != PONG or not accepting:
            raise DialFailed("the node accepts no more sockets", node.address)
        return hub.open_framed(node.address, window, answer.data[SIZE:])

    async def listen(self, address: str, accept: Accept, *, sock: _socket.socket | None = None) -> Listener:
        """See `Transport.listen`.

        Raises:
            ConfigurationError: the address cannot be a subject, or is in use; or a socket is handed down.
            BackendUnavailable, BackendRefused: no server answers, or it says no.
        """
        self.require_open()
        if sock is not None:
            raise ConfigurationError("the NATS transport has no sockets to be handed down")
        from pymicro_transport_nats._listener import NatsListener

        assert self._link is not None
        async with self._link.within(self._build.timeout, "listening"):
            hub = await self._connect()
            if not address or address.endswith(":0"):  # a free one, whatever the host is
                address = hub.session.new_inbox()
            check_subject(address, "address")
            listener = NatsListener(address, accept, self._connect, self._build, frames=self._options.frames)
            await listener.start(hub)
        self._listeners.add(listener)
        return listener

    async def _close(self) -> None:
        await asyncio.gather(*(listener.aclose() for listener in list(self._listeners)))
        hub, self._hub = self._hub, None
        if hub is not None:
            await hub.aclose()
            with suppress(TimeoutError, PymicroError):
                async with asyncio.timeout(_CLOSE_TIME):
                    await hub.session.written()
        if self._link is not None:
            await self._link.aclose()
