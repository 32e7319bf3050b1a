"""Sockets between pymicro peers: each has a window, an end, and says which messages were taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymicro.errors import Disconnected, ProtocolViolation, TooLarge, Unavailable
from pymicro.message import Message
from pymicro_transport_nats._frames import CLOSE, CREDIT, DATA, FRAME, OPEN, SIZE, WINDOW, header_size, pack
from pymicro_transport_nats._socket import ERROR_ID, NatsSocket

if TYPE_CHECKING:
    from pymicro_transport_nats._hub import Hub


class FramedSocket(NatsSocket):
    """See `_frames` for what it writes.

    Args:
        hub, there, here, remote: as for `NatsSocket`.
        credit: bytes that the peer holds.
        peer: the subject at which the peer says whether it is there.
        life: what it answers then, and nothing else; empty for anything.
    """

    def __init__(
        self, hub: Hub, there: str, here: str, remote: str, *, credit: int, peer: str, life: bytes = b""
    ) -> None:
        super().__init__(hub, there, here, remote)
        self.peer, self.life = peer, life
        self._credit = credit
        self._window = self._limits.buffer
        self._held = 0

    # sending

    async def send(self, message: Message) -> None:
        body, limits = message.body, self._limits
        if len(body) > limits.message:
            raise TooLarge(f"a message of {len(body)} bytes is over the limit of {limits.message}", ERROR_ID)
        if self._credit <= 0 or self._session.congested:
            await self._may_send()
        if not self.connected:
            raise self._send_error()
        constant, added = pack(message.headers)
        if len(constant) + len(added) > limits.headers:
            limits.check(message)
        if self.sent or self.serving:
            frame = b"%b%b%b%b" % (FRAME.pack(DATA, len(constant), len(added)), constant, added, body)
        else:
            head = FRAME.pack(OPEN, len(constant), len(added)) + WINDOW.pack(min(self._window, 0xFFFFFFFF))
            frame = b"%b%b%b%b" % (head, constant, added, body)
        self._write(frame)
        self._credit -= len(frame)
        if not self.sent:
            self._began_with(message)
        self.sent += 1
        if self._session.congested:
            await self._room()

    async def _may_send(self) -> None:
        """Wait until the peer has room, and the server."""
        while self.connected and self._credit <= 0:
            self._sender = self._hub.loop.create_future()
            try:
                await self._sender
            finally:
                self._sender = None
        self._check()
        if self._session.congested:
            await self._room()

    def _began_with(self, message: Message) -> None:
        if "micro-stream" in message.headers.lowered:
            self._stream = True

    # receiving

    def take(self, data: bytes) -> None:
        if len(data) < SIZE:
            raise ProtocolViolation("a frame that is too short", self.remote)
        kind, one, other = FRAME.unpack_from(data)
        if kind == DATA:
            self.take_message(data, SIZE, one, other)
        elif kind == CREDIT:
            self._credit += one
            self._wake_sender()
        elif kind == CLOSE:
            self._ended_by_peer(one, refused=bool(other))
        else:
            raise ProtocolViolation(f"a frame of the unknown kind {kind}", self.remote)

    def take_message(self, data: bytes, start: int, constant: int, added: int) -> None:
        """A message arrived, whose headers begin at `start`."""
        size, limits = len(data), self._limits
        first, second = data[start : start + constant], data[start + constant : start + constant + added]
        body = data[start + constant + added :]
        if self._inbox_size > self._window:  # of a peer that keeps to its credit, one frame may be over it
            raise ProtocolViolation("the peer sent more than its credit", self.remote)
        if len(body) > limits.message:
            self._deliver(self._too_large("a message", len(body), limits.message), size)
            return
        if constant + added > limits.headers and header_size(first, second) > limits.headers:
            self._deliver(self._too_large("headers", constant + added, limits.headers), size)
            return
        message = Message(self._hub.reader.headers(first, second), body)
        if not self.received:
            self._began_with(message)
        self._deliver(message, size)

    def _took(self, size: int) -> None:
        self._held += size
        if self._held * 2 >= self._window and self.connected:
            held, self._held = self._held, 0
            self._write(FRAME.pack(CREDIT, held, 0))

    # the end

    def _ended_by_peer(self, taken: int, *, refused: bool) -> None:
        if refused or (taken <= self.received < self.sent and not self._stream):
            # what was sent since the last answer was never looked at
            self.lose(Unavailable("the node closed the socket without taking the call", ERROR_ID, executed="no"))
        else:
            self.lose(Disconnected("the peer closed the socket", self.remote))

    def _say_goodbye(self) -> None:
        if self.sent or self.serving:  # or the peer knows nothing of it
            self._write(FRAME.pack(CLOSE, self.taken, 0))
