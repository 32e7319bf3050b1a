"""Sockets: one subject for what one side says to the other, and one back."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Final

from pymicro.errors import (
    Closed,
    Disconnected,
    Error,
    PymicroError,
    TooLarge,
    Unavailable,
    UsageError,
)
from pymicro.message import Message
from pymicro.transport import Socket

if TYPE_CHECKING:
    from pymicro_transport_nats._hub import Hub

ERROR_ID: Final = "pymicro.transport.nats"

_Waiter = asyncio.Future[None]


class NatsSocket(Socket):
    """What sockets to all peers share.

    Args:
        hub: the connection and its other sockets.
        there: the subject to send to.
        here: the subject to hear from the peer; empty on the accepting side.
        remote: the peer, for people.

    Attributes:
        serving: whether this is the accepting side.
        sent, received: messages.
    """

    def __init__(self, hub: Hub, there: str, here: str, remote: str) -> None:
        self.local, self.remote = here or hub.name, remote
        self.serving = not here
        self.connected = True
        self.sent = 0
        self.received = 0
        self.taken = 0
        self._hub = hub
        self._session = hub.session
        self._limits = hub.limits
        self._put = f"PUB {there} {here} ".encode() if here else f"PUB {there} ".encode()
        self._inbox: deque[tuple[Message | Error, int]] = deque()
        self._inbox_size = 0
        self._stream = False
        self._fault: PymicroError | None = None
        self._receiver: _Waiter | None = None
        self._sender: _Waiter | None = None
        hub.sockets.add(self)

    # what the two kinds add

    @abstractmethod
    def take(self, data: bytes) -> None:
        """A payload arrived.

        Raises:
            ProtocolViolation: it makes no sense.
        """

    @abstractmethod
    def _say_goodbye(self) -> None:
        """Tell the peer that this side closed, if it can be told."""

    # sending

    def _write(self, payload: bytes) -> None:
        """Send a payload, if the server takes it.

        Raises:
            TooLarge: it does not; nothing was sent.
        """
        most = self._session.max_payload
        if len(payload) > most:
            raise TooLarge(
                f"message of {len(payload)} bytes is over the NATS server's limit of {most} (max_payload)", ERROR_ID
            )
        self._session.write(b"%b%d\r\n%b\r\n" % (self._put, len(payload), payload))

    async def _room(self) -> None:
        """Wait for a server that does not read."""
        try:
            await self._session.room()
        except PymicroError as error:
            self.lose(Disconnected(str(error), self.remote))
        self._check()

    def _check(self) -> None:
        if not self.connected:
            raise self._send_error()

    def _send_error(self) -> PymicroError:
        if self._closed:
            return Closed("the socket was closed")
        if isinstance(self._fault, Disconnected | Closed):
            return self._fault.with_traceback(None)
        return Disconnected("the peer closed the socket", self.remote)  # `recv` says what it answered, if it did

    # receiving

    async def recv(self) -> Message:
        inbox = self._inbox
        while not inbox:
            if self._closed or self._fault is not None:
                raise self._recv_error()
            if self._receiver is not None:
                raise UsageError("two tasks receive from one socket: one at a time")
            self._receiver = self._hub.loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        if self._closed:
            raise self._recv_error()
        message, size = inbox.popleft()
        self._inbox_size -= size
        self.taken += 1
        self._took(size)
        if isinstance(message, Error):
            raise message
        return message

    def _took(self, size: int) -> None:
        """A message of this size was taken."""

    def _recv_error(self) -> PymicroError:
        if self._closed or self._fault is None:
            return Closed("the socket was closed")
        return self._fault.with_traceback(None)

    def _deliver(self, message: Message | Error, size: int) -> None:
        self.received += 1
        if self._fault is None and not self._closed:
            self._inbox.append((message, size))
            self._inbox_size += size
            self._wake_receiver()

    def _too_large(self, what: str, size: int, limit: int) -> TooLarge:
        text = f"{what} of {size} bytes is over the limit of {limit}"
        return TooLarge(text, ERROR_ID, executed="no" if self.serving else "maybe")  # an answer: it was executed

    def _wake_receiver(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _wake_sender(self) -> None:
        if self._sender is not None and not self._sender.done():
            self._sender.set_result(None)

    # the end

    def unheard(self) -> None:
        """Nobody listens to what was sent."""
        if not self._stream and self.sent == self.received + 1:
            self.lose(Unavailable("nobody listens at this subject any more", ERROR_ID, executed="no"))
        else:
            self.lose(Disconnected("the peer is gone", self.remote))

    def lose(self, fault: PymicroError) -> None:
        """The socket ended without this side's doing."""
        if not self.connected:
            return
        self.connected = False
        self._lost = True
        self._fault = self._fault or fault
        self._hub.forget(self)
        self._wake_receiver()
        self._wake_sender()
        self._notify()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._on_disconnect = None
        was_open, self.connected = self.connected, False
        self._inbox.clear()
        self._wake_receiver()
        self._wake_sender()
        if was_open:
            self._say_goodbye()
            self._hub.forget(self)
        if self._fault is not None:
            self._fault.__traceback__ = None  # its frames would keep this socket in a circle
