"""One connection as a socket of messages, on an asyncio transport.

Reading stops while complete messages of more than `Limits.buffer` bytes wait to be taken, and goes on when all are
taken; a message in the making never stops it, so one larger than the buffer arrives. While reading is stopped a
disconnect is not seen. Writing has the transport's own high-water mark.

Nothing here creates a task. `data_received` parses; `recv` takes what is there or waits on one future.
"""

from __future__ import annotations

import asyncio
import logging
import socket as _socket
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from pymicro.errors import Closed, Disconnected, Error, ProtocolViolation, PymicroError, TooLarge, UsageError
from pymicro.message import Message
from pymicro.plugins import Limits
from pymicro.plugins.toolkit import join_address, log
from pymicro.transport import Socket
from pymicro_transport_http._channels import CLOSE_TIMEOUT, Channels
from pymicro_transport_http._encoding import encode
from pymicro_transport_http._protocol import CHANNELS, PROCESS, WINDOW, Parser, Upgrade

#: Bodies up to this size go out in one piece with their head; copying larger ones costs more than a second write.
JOINED: Final = 16 * 1024

#: Discarded after a refused message, in multiples of `Limits.message`, so that the peer gets to read the answer.
_DISCARDED_MESSAGES: Final = 4

#: Seconds between TCP keep-alive probes, and how many may be lost: as Go's `net` package has them.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 9))

#: The answer to an upgrade, for the bytes that this side holds of each channel.
SWITCHED: Final = (
    f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {CHANNELS}\r\n"
    f"{WINDOW}: %d\r\n{PROCESS}: %b\r\n\r\n".encode()
)

#: The last word on a connection at rest. A request that crosses it on the wire was not executed, and so the caller
#: learns it.
GOODBYE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Micro-Executed: no\r\nContent-Length: 18\r\n\r\nconnection closed\n"
)

_Waiter = asyncio.Future[None]


class Keeper(Protocol):
    """Who accepts connections.

    Attributes:
        takes_channels: whether a connection may carry channels.
        process: what tells this process from others that serve at the same address.
    """

    takes_channels: bool
    process: bytes

    def made(self, socket: HttpSocket) -> None:
        """The connection stands."""

    def began(self, socket: HttpSocket) -> None:
        """The peer sent something, in HTTP."""

    def switched(self, socket: HttpSocket, transport: asyncio.Transport, window: int) -> Channels:
        """The peer asked for channels."""

    def lost(self, socket: HttpSocket) -> None:
        """The connection is gone."""


class HttpSocket(asyncio.Protocol, Socket):
    """Either side of a connection.

    Args:
        parser: for what comes in.
        head: what each outgoing message begins with.
        limits: of messages and buffers.
        logger: hears of peers that do not speak HTTP.
        keeper: who accepted the connection; None on the dialling side.
    """

    def __init__(
        self,
        parser: Parser,
        head: bytes,
        limits: Limits,
        *,
        logger: logging.Logger,
        keeper: Keeper | None = None,
    ) -> None:
        self._segments = 0
        self._parser = parser
        self._head = head
        self._limits = limits
        self._max_headers = limits.headers
        self._quick = min(JOINED, limits.message)
        self._serving = keeper is not None
        self._logger = logger
        self._keeper = keeper
        self._silent = self._serving
        self._channels: Channels | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._open = False
        self.connected = False
        self._closed = False
        self._lost = False
        self._finished = False
        self._sent = 0
        self._lines = b""
        self._held = 0
        self._discarded = 0
        self._reading_paused = False
        self._writing_paused = False
        self._receiver: _Waiter | None = None
        self._senders: list[_Waiter] = []
        self._closers: list[_Waiter] = []

    # the contract

    async def send(self, message: Message) -> None:
        body = message.body
        size = len(body)
        lines = encode(message.headers)
        if size > self._quick or len(lines) > self._max_headers:
            self._check_size(size, lines)
        if self._writing_paused:
            await self._writable()
        transport = self._transport
        if not self._open or transport is None or transport.is_closing():  # a write failed: the loop tells later
            raise self._send_error()
        if size <= JOINED:
            transport.write(b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, lines, size, body))
        else:  # not writelines, which joins before Python 3.12
            transport.write(b"%b%bContent-Length: %d\r\n\r\n" % (self._head, lines, size))
            transport.write(bytes(body))
        self._sent += 1
        self._lines = lines
        if self._writing_paused:
            await self._writable()

    def _check_size(self, size: int, lines: bytes) -> None:
        if size > self._limits.message:
            raise TooLarge(f"a message of {size} bytes is over the limit of {self._limits.message}")
        counted = len(lines) - 4 * lines.count(b"\r\n")  # without the punctuation, as the other side counts
        if counted > self._max_headers:
            raise TooLarge(f"headers of {counted} bytes are over the limit of {self._max_headers}")

    async def _writable(self) -> None:
        while self._writing_paused and self._open:
            waiter = self._loop.create_future()
            self._senders.append(waiter)
            try:
                await waiter
            finally:
                self._senders.remove(waiter)
        if not self._open:
            raise self._send_error()

    async def recv(self) -> Message:
        inbox = self._parser.inbox
        while not inbox:
            if self._closed or self._parser.fault is not None:
                raise self._recv_error()
            if self._receiver is not None:
                raise UsageError("two tasks receive from one socket: one at a time")
            self._receiver = self._loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        if self._closed:
            raise self._recv_error()
        message = inbox.popleft()
        if not inbox:
            self._held = 0
            if self._reading_paused:
                self._resume_reading()
        return message

    def _recv_error(self) -> PymicroError:
        fault = self._parser.fault
        if self._closed or fault is None:
            return Closed("the socket was closed")
        return fault.with_traceback(None)

    def _send_error(self) -> PymicroError:
        fault = self._parser.fault
        if self._closed:
            return Closed("the socket was closed")
        if isinstance(fault, Disconnected):
            return fault.with_traceback(None)
        return Disconnected("the peer closed the connection", self.remote)  # `recv` says what it answered, if it did

    async def aclose(self) -> None:
        first = not self._closed
        self._closed = True
        self._open = self.connected = False
        self._on_disconnect = None
        transport = self._transport
        if first and transport is not None and not self._finished:
            self._wake_all()
            self._begin_close(transport)
        if transport is not None and not self._finished:
            await self._wait_finished(transport)
        if self._parser.fault is not None:
            self._parser.fault.__traceback__ = None  # its frames would keep this socket in a circle

    def _begin_close(self, transport: asyncio.Transport) -> None:
        if self._channels is not None:
            self._channels.close()
        elif self._at_rest_until_now(transport):
            transport.write(GOODBYE)
        refused = self._parser.fault is not None and not self._lost
        if not (self._serving and refused) or transport.is_closing():
            transport.close()
            return
        # Closing with unread input would reset the connection and take the answer away from the peer. So it is
        # read on, and thrown away, until the peer is done.
        self._resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

    def _at_rest_until_now(self, transport: asyncio.Transport) -> bool:
        """Whether the peer may be about to send another request, which shall not be lost without a word."""
        parser = self._parser
        if b"Connection: close" in self._lines:  # it was told, and nothing may follow: RFC 9112, section 9.6
            return False
        idle = self._serving and not self._lost and parser.fault is None and not transport.is_closing()
        return idle and not parser.streaming and parser.received == self._sent > 0

    async def _wait_finished(self, transport: asyncio.Transport) -> None:
        waiter = self._loop.create_future()
        self._closers.append(waiter)
        timer = self._loop.call_later(CLOSE_TIMEOUT, transport.abort)
        try:
            await waiter
        except asyncio.CancelledError:
            transport.abort()
            raise
        finally:
            timer.cancel()
            self._closers.remove(waiter)

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = as_transport(transport)
        self._transport.set_write_buffer_limits(high=self._limits.buffer)
        self._open = self.connected = True
        self.local = address_of(transport.get_extra_info("sockname"))
        self.remote = self._parser.peer = address_of(transport.get_extra_info("peername"))
        keep_alive(transport.get_extra_info("socket"))
        if self._keeper is not None:
            self._keeper.made(self)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        self._segments += 1
        if parser.fault is not None:
            self._discard(len(data))
            return
        sound = parser.feed(data)
        if self._silent:
            if sound and self._may_ask(data):
                return
            self._silent = False
            if parser.upgrade is not None and self._switched(parser.upgrade):
                return
            sound = self._began()
        if parser.inbox:
            self._held += len(data)
            if self._held > self._limits.buffer:
                self._pause_reading()
        elif sound:
            return
        receiver = self._receiver
        if receiver is not None and not receiver.done():
            receiver.set_result(None)
        if not sound:
            self._refused()

    def _may_ask(self, data: bytes) -> bool:
        """Whether the rest of a head is awaited that may ask for channels; other calls are no `GET`."""
        parser = self._parser
        return parser.upgrade is None and parser.in_head and (self._segments > 1 or data.startswith(b"G"))

    def _began(self) -> bool:
        """The peer spoke, so there is something to be served; whether all is well with it."""
        if self._keeper is not None:
            self._keeper.began(self)
        return self._parser.fault is None

    def _switched(self, upgrade: Upgrade) -> bool:
        """Whether the connection carries channels from now on. This socket then stands for the whole of it."""
        if self._keeper is None or self._transport is None or not self._keeper.takes_channels:
            self._parser.refuse_upgrade()
            return False
        self._transport.write(SWITCHED % (self._limits.buffer, self._keeper.process))
        self._channels = self._keeper.switched(self, self._transport, upgrade.window)
        if upgrade.rest:
            self._channels.data_received(upgrade.rest)
        return True

    def _refused(self) -> None:
        """Nothing more is read. Who does not speak HTTP is told so in HTTP, if it is the first it hears."""
        fault = self._parser.fault
        self.connected = self._serving
        if isinstance(fault, Error) and not self._serving and self._sent == self._parser.received:
            # an answer to nothing, such as `GOODBYE`
            self._parser.fault = Disconnected("the peer closed the connection", self.remote)
        if not self._serving or self._transport is None:
            return
        log(self._logger, logging.DEBUG, "input refused", remote=self.remote, error=str(fault))
        if isinstance(fault, ProtocolViolation) and self._parser.received == 0:
            text = f"400 Bad Request: {fault.detail}".encode()
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(text), text)
            )

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > _DISCARDED_MESSAGES * self._limits.message and self._transport is not None:
            self._transport.abort()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        _wake(self._senders)

    def eof_received(self) -> None:
        self._gone()

    def connection_lost(self, error: Exception | None) -> None:
        parser = self._parser
        if self._finished:
            return
        if error is not None and parser.fault is None:
            parser.fault = Disconnected(f"the connection broke: {error}", self.remote)
            parser.fault.__cause__ = error
        self._finished = True
        self._gone()
        _wake(self._closers)
        parser.release()
        if self._keeper is not None:
            self._keeper.lost(self)

    def _gone(self) -> None:
        if self._lost:
            return
        self._lost = True
        self._open = self.connected = False
        self._parser.end()
        self._wake_all()
        self._notify()

    def _wake_all(self) -> None:
        if self._receiver is not None:
            _wake([self._receiver])
        _wake(self._senders)

    # what the listener asks

    @property
    def head_pending(self) -> bool:
        """Whether the rest of a request's head is awaited; not while this side has stopped reading."""
        return self._open and self._channels is None and not self._reading_paused and self._parser.in_head

    @property
    def received(self) -> int:
        """How many messages came."""
        return self._parser.received

    @property
    def progress(self) -> int:
        """Grows with whatever happens on the connection."""
        return self._segments + self._sent if self._channels is None else self._channels.activity

    @property
    def at_rest(self) -> bool:
        """Whether nothing is going on: no stream, and as many messages were sent as received."""
        parser = self._parser
        if self._channels is not None:
            return self._channels.at_rest
        return self._open and not parser.streaming and parser.received == self._sent

    def leave(self) -> None:
        """Take no more channels."""
        if self._channels is not None:
            self._channels.leave()

    def expire(self, detail: str) -> None:
        """End the connection because it took too long."""
        if self._transport is None or not self._open:
            return
        self._parser.fault = Disconnected(detail, self.remote)
        self._gone()
        if self._channels is not None:
            self._channels.close(self._parser.fault)
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # the peer does not read either
        else:
            self._transport.close()


def _wake(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def as_transport(transport: asyncio.BaseTransport) -> asyncio.Transport:
    """What uvloop's transports are, though they have no such base."""
    return cast("asyncio.Transport", transport)


def address_of(name: Any) -> str:
    """`host:port` of what the socket module calls an address."""
    return join_address(name[0], name[1]) if isinstance(name, tuple) else str(name or "")


def keep_alive(sock: Any) -> None:
    """Probe silent peers: one that lost its power is noticed in a few minutes."""
    with suppress(OSError):  # the peer may be gone already
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(_socket, name):  # not on every platform
                sock.setsockopt(_socket.IPPROTO_TCP, getattr(_socket, name), value)
