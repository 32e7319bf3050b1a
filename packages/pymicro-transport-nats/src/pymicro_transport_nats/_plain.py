"""Sockets to Go peers: messages and nothing else, so neither side knows when the other leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymicro.errors import Disconnected
from pymicro.message import Message
from pymicro_transport_nats import _envelope
from pymicro_transport_nats._socket import NatsSocket

if TYPE_CHECKING:
    from pymicro_transport_nats._hub import Hub


class PlainSocket(NatsSocket):
    """See `_envelope` for what it writes.

    Args:
        hub, there, here, remote: as for `NatsSocket`.
        max_unread: bytes that may be here and were not taken; with more the socket is lost.
        idle_timeout: seconds; on the accepting side, a client that sends nothing for as long is taken for gone.
    """

    def __init__(self, hub: Hub, there: str, here: str, remote: str, *, max_unread: int, idle_timeout: float) -> None:
        super().__init__(hub, there, here, remote)
        self._max_unread = max_unread
        self._idle_timeout = idle_timeout
        self._id = ""

    async def send(self, message: Message) -> None:
        self._check()
        self._limits.check(message)
        if self._session.congested:
            await self._room()
        self._write(_envelope.write(message, self._id))
        if not self.sent and "micro-stream" in message.headers.lowered:
            self._stream = True
        self.sent += 1
        if self._session.congested:
            await self._room()

    async def recv(self) -> Message:
        if self._inbox or not self.serving:
            message = await super().recv()
        else:
            timer = self._hub.clock.call_later(self._idle_timeout, self._silent)
            try:
                message = await super().recv()
            finally:
                timer.cancel()
        if self.serving:
            # Go's clients may have several calls in flight on a socket, and find their answers by the id.
            self._id = message.headers.lowered.get("micro-id", "")
        return message

    def _silent(self) -> None:
        self.lose(Disconnected(f"the peer sent nothing for {self._idle_timeout:g} s", self.remote))

    def take(self, data: bytes) -> None:
        size, limits = len(data), self._limits
        if self._inbox and self._inbox_size + size > self._max_unread:
            self.lose(Disconnected(f"the peer sent more than {self._max_unread} bytes that nobody took", self.remote))
        elif size > _envelope.longest(limits):
            self._deliver(self._too_large("a message", size, limits.message), size)
        else:
            message = _envelope.read(data)
            if len(message.body) > limits.message:
                self._deliver(self._too_large("a message", len(message.body), limits.message), size)
            elif message.size - len(message.body) > limits.headers:
                self._deliver(self._too_large("headers", message.size - len(message.body), limits.headers), size)
            else:
                self._deliver(message, size)

    def _say_goodbye(self) -> None:
        """Go's transport has no words for it."""
