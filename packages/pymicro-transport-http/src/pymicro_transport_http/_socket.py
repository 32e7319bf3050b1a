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
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from pymicro.errors import Closed, Disconnected, ProtocolViolation, PymicroError, TooLarge, UsageError
from pymicro.message import Message
from pymicro.plugins import Limits
from pymicro.plugins.toolkit import join_address, log
from pymicro.transport import Socket
from pymicro_transport_http._encoding import encode
from pymicro_transport_http._protocol import Parser

#: Bodies up to this size go out in one piece with their head; copying larger ones costs more than a second write.
JOINED: Final = 16 * 1024

#: Seconds that closing waits for the peer to read what was sent.
CLOSE_TIMEOUT: Final = 5.0

#: Discarded after a refused message, in multiples of `Limits.message`, so that the peer gets to read the answer.
_DISCARDED_MESSAGES: Final = 4

#: Seconds between TCP keep-alive probes, and how many may be lost: as Go's `net` package has them.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 9))

_Waiter = asyncio.Future[None]


class HttpSocket(asyncio.Protocol, Socket):
    """Either side of a connection.

    Args:
        parser: for what comes in.
        head: what goes before the length of each outgoing body.
        limits: of messages and buffers.
        serving: whether this is the accepting side.
        logger: hears of peers that do not speak HTTP.
        on_made: called with the socket when the connection stands; None for nothing.

    Attributes:
        activity: grows with each segment received and each message sent.
    """

    def __init__(
        self,
        parser: Parser,
        head: bytes,
        limits: Limits,
        *,
        serving: bool,
        logger: logging.Logger,
        on_made: Callable[[HttpSocket], None] | None = None,
    ) -> None:
        self.activity = 0
        self._parser = parser
        self._head = head
        self._limits = limits
        self._serving = serving
        self._logger = logger
        self._on_made = on_made
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._on_disconnect: Callable[[], None] | None = None
        self._open = False
        self._closed = False
        self._lost = False
        self._finished = False
        self._sent = 0
        self._held = 0
        self._discarded = 0
        self._reading_paused = False
        self._writing_paused = False
        self._receiver: _Waiter | None = None
        self._senders: list[_Waiter] = []
        self._closers: list[_Waiter] = []

    # the contract

    @property
    def on_disconnect(self) -> Callable[[], None] | None:
        return self._on_disconnect

    @on_disconnect.setter
    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        self._on_disconnect = callback
        if callback is not None and self._lost and not self._closed:
            self._loop.call_soon(self._notify)

    @property
    def connected(self) -> bool:
        return self._open and (self._serving or self._parser.fault is None)

    async def send(self, message: Message) -> None:
        body = message.body
        lines = encode(message.headers)
        if len(body) > self._limits.message:
            raise TooLarge(f"a message of {len(body)} bytes is over the limit of {self._limits.message}")
        if len(lines) > self._limits.headers:
            size = len(lines) - 4 * lines.count(b"\r\n")  # without the punctuation, as the other side counts
            if size > self._limits.headers:
                raise TooLarge(f"headers of {size} bytes are over the limit of {self._limits.headers}")
        if self._writing_paused:
            await self._writable()
        transport = self._transport
        if not self._open or transport is None or transport.is_closing():  # a write failed: the loop tells later
            raise self._send_error()
        if len(body) <= JOINED:
            transport.write(b"%b%d\r\n%b\r\n%b" % (self._head, len(body), lines, body))
        else:  # not writelines, which joins before Python 3.12
            transport.write(b"%b%d\r\n%b\r\n" % (self._head, len(body), lines))
            transport.write(bytes(body))
        self._sent += 1
        self.activity += 1
        if self._writing_paused:
            await self._writable()

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
        self._open = False
        self._on_disconnect = None
        transport = self._transport
        if transport is None or self._finished:
            return
        if first:
            self._wake_all()
            self._begin_close(transport)
        await self._wait_finished(transport)

    def _begin_close(self, transport: asyncio.Transport) -> None:
        refused = self._parser.fault is not None and not self._lost
        if not (self._serving and refused) or transport.is_closing():
            transport.close()
            return
        # Closing with unread input would reset the connection and take the answer away from the peer. So it is
        # read on, and thrown away, until the peer is done.
        self._resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

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
        self._transport = cast("asyncio.Transport", transport)  # uvloop's have no such base
        self._transport.set_write_buffer_limits(high=self._limits.buffer)
        self._open = True
        self.local = address_of(transport.get_extra_info("sockname"))
        self.remote = self._parser.peer = address_of(transport.get_extra_info("peername"))
        _keep_alive(transport.get_extra_info("socket"))
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        self.activity += 1
        if parser.fault is not None:
            self._discard(len(data))
            return
        sound = parser.feed(data)
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

    def _refused(self) -> None:
        """Nothing more is read. Who does not speak HTTP is told so in HTTP, if it is the first it hears."""
        fault = self._parser.fault
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

    def _gone(self) -> None:
        if self._lost:
            return
        self._lost = True
        self._open = False
        self._parser.end()
        self._wake_all()
        self._notify()

    def _notify(self) -> None:
        callback, self._on_disconnect = self._on_disconnect, None
        if callback is not None:
            callback()

    def _wake_all(self) -> None:
        if self._receiver is not None:
            _wake([self._receiver])
        _wake(self._senders)

    # what the listener asks

    @property
    def head_pending(self) -> bool:
        """Whether the rest of a request's head is awaited; not while this side has stopped reading."""
        return self._open and not self._reading_paused and self._parser.in_head

    @property
    def received(self) -> int:
        """How many messages came."""
        return self._parser.received

    @property
    def at_rest(self) -> bool:
        """Whether nothing is going on: no stream, and as many messages were sent as received."""
        parser = self._parser
        return self._open and not parser.streaming and parser.received == self._sent

    def expire(self, detail: str) -> None:
        """End the connection because it took too long."""
        if self._transport is None or not self._open:
            return
        self._parser.fault = Disconnected(detail, self.remote)
        self._gone()
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # the peer does not read either
        else:
            self._transport.close()


def _wake(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def address_of(name: Any) -> str:
    """`host:port` of what the socket module calls an address."""
    return join_address(name[0], name[1]) if isinstance(name, tuple) else str(name or "")


def _keep_alive(sock: Any) -> None:
    """Probe silent peers: one that lost its power is noticed in a few minutes."""
    with suppress(OSError):  # the peer may be gone already
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(_socket, name):  # not on every platform
                sock.setsockopt(_socket.IPPROTO_TCP, getattr(_socket, name), value)
