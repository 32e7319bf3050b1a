"""One socket of a connection that many share."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from pymicro.errors import Closed, Disconnected, Error, PymicroError, TooLarge, Unavailable, UsageError
from pymicro.message import Message
from pymicro.transport import Socket
from pymicro_transport_http._frames import BEGIN, CREDIT, END, MORE, PIECE
from pymicro_transport_http._protocol import ERROR_ID

if TYPE_CHECKING:
    from pymicro_transport_http._channels import Channels

_Waiter = asyncio.Future[None]


class Channel(Socket):
    """One socket of a `Channels` connection; see `Socket`."""

    def __init__(self, channels: Channels, number: int, credit: int) -> None:
        self.local, self.remote = channels.local, channels.remote
        self.number = number
        self.sent = 0
        self.received = 0
        self.taken = 0
        self.held = 0
        self._stream = False
        self._channels = channels
        self._credit = credit
        self._inbox: deque[Message] = deque()
        self._fault: PymicroError | None = None
        self.connected = True
        self._closed = False
        self._receiver: _Waiter | None = None
        self._sender: _Waiter | None = None

    # sending

    async def send(self, message: Message) -> None:
        channels, body = self._channels, message.body
        if len(body) > channels.limits.message:
            raise TooLarge(f"a message of {len(body)} bytes is over the limit of {channels.limits.message}")
        if self._credit <= 0 or channels.paused:
            await self._may_send()
        if not self.connected:
            raise self._send_error()
        if len(body) <= PIECE:
            self._credit -= channels.write_message(self, message.headers, body)
            if not self.sent:
                self._began_with(message)
            self.sent += 1
        else:
            await self._send_pieces(message)
        if channels.paused:
            await self._may_send(credit=False)

    async def _send_pieces(self, message: Message) -> None:
        """A message cut off in the middle leaves a channel that is good for nothing."""
        channels, body = self._channels, memoryview(message.body)
        self._credit -= channels.write_message(self, message.headers, bytes(body[:PIECE]), kind=BEGIN)
        if not self.sent:
            self._began_with(message)
        self.sent += 1
        start, last = PIECE, len(body) - PIECE
        try:
            while start < len(body):
                if self._credit <= 0 or channels.paused:
                    await self._may_send()
                kind = MORE if start < last else END
                self._credit -= channels.write_piece(self.number, kind, body[start : start + PIECE])
                start += PIECE
        except BaseException:
            self.lose(Disconnected("a message was cut off in the middle", self.remote))
            channels.close_channel(self)
            raise

    async def _may_send(self, *, credit: bool = True) -> None:
        """Wait until the peer has room, if `credit`, and the connection too."""
        channels = self._channels
        while self.connected and (channels.paused or (credit and self._credit <= 0)):
            self._sender = channels.loop.create_future()
            try:
                await self._sender
            finally:
                self._sender = None
        if not self.connected:
            raise self._send_error()

    def _send_error(self) -> PymicroError:
        if self._closed:
            return Closed("the socket was closed")
        if isinstance(self._fault, (Disconnected, Closed)):
            return self._fault.with_traceback(None)
        return Disconnected("the peer closed the channel", self.remote)  # `recv` says what it answered, if it did

    def granted(self, size: int) -> None:
        """The peer took `size` bytes out of its window."""
        self._credit += size
        self.may_send()

    def may_send(self) -> None:
        """Something changed for a sender that waits."""
        if self._sender is not None and not self._sender.done():
            self._sender.set_result(None)

    # receiving

    async def recv(self) -> Message:
        inbox = self._inbox
        while not inbox:
            if self._closed or self._fault is not None:
                raise self._recv_error()
            if self._receiver is not None:
                raise UsageError("two tasks receive from one socket: one at a time")
            self._receiver = self._channels.loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        if self._closed:
            raise self._recv_error()
        message = inbox.popleft()
        self.taken += 1
        if not inbox and self.held >= self._channels.half_window:
            self.grant()
        return message

    def _recv_error(self) -> PymicroError:
        if self._closed or self._fault is None:
            return Closed("the socket was closed")
        return self._fault.with_traceback(None)

    @property
    def drained(self) -> bool:
        """Whether every message that arrived was taken."""
        return not self._inbox

    def grant(self) -> None:
        """Let the peer send as much as was held here."""
        held, self.held = self.held, 0
        self._channels.write_control(CREDIT, self.number, held)

    def deliver(self, message: Message) -> None:
        """A message arrived."""
        if not self.received:
            self._began_with(message)
        self.received += 1
        if self._fault is None:
            self._inbox.append(message)
            self._wake_receiver()

    def _began_with(self, message: Message) -> None:
        if "micro-stream" in message.headers.lowered:
            self._stream = True

    def _wake_receiver(self) -> None:
        receiver = self._receiver
        if receiver is not None and not receiver.done():
            receiver.set_result(None)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is going on: no stream, and as many messages were sent as received."""
        return not self._stream and self.sent == self.received

    # the end

    def refuse(self, error: Error) -> None:
        """What arrives breaks a limit: there is one answer left to send."""
        if self._fault is None:
            if not self._channels.serving:  # an answer, so the request was taken
                error.executed = "maybe"
            self._fault = error
            self._wake_receiver()

    def ended_by_peer(self, taken: int, *, refused: bool) -> None:
        """The peer closed the channel after it took `taken` messages from it."""
        if refused or (taken <= self.received < self.sent and not self._stream):
            # what was sent since the last answer was never looked at
            self.lose(Unavailable("the node closed the channel without taking the call", ERROR_ID, executed="no"))
        else:
            self.lose(Disconnected("the peer closed the channel", self.remote))

    def lose(self, fault: PymicroError) -> None:
        """The channel ended without this side's doing."""
        if not self.connected:
            return
        self.connected = False
        self._lost = True
        if self._fault is None:
            self._fault = fault
        self._wake_receiver()
        self.may_send()
        if not isinstance(fault, Closed):
            self._notify()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._on_disconnect = None
        was_open, self.connected = self.connected, False
        self._inbox.clear()
        self._wake_receiver()
        self.may_send()
        self._channels.close_channel(self, tell=was_open)
        if self._fault is not None:
            self._fault.__traceback__ = None  # its frames would keep this channel in a circle
