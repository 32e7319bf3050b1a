"""One end of a socket: a number of messages between two queues."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from pymicro.clock import Clock
from pymicro.errors import (
    BackendRefused,
    Closed,
    ConnectionFailed,
    DialFailed,
    Disconnected,
    TooLarge,
    Unavailable,
    UsageError,
)
from pymicro.message import Message
from pymicro.plugins import Limits
from pymicro.transport import Socket
from pymicro_rabbitmq.connection import bounded
from pymicro_transport_rabbitmq import _wire
from pymicro_transport_rabbitmq._post import Post
from pymicro_transport_rabbitmq._wire import Parcel, Terms

#: The part of a window that is taken before the peer is told.
_PART: Final = 2

_ERROR_ID: Final = "pymicro.transport.rabbitmq"


class Ends:
    """Where a socket is.

    Attributes:
        queue: of this end, where the peer answers to.
        exchange, key: how the peer is reached.
        peer: the queue that exists for as long as the peer does.
        terms: what the peer takes; None: it is one of Go Micro's, and does not say.
    """

    __slots__ = ("exchange", "key", "peer", "queue", "terms")

    def __init__(self, queue: str, *, exchange: str, key: str, terms: Terms | None) -> None:
        self.queue = queue
        self.exchange = exchange
        self.key = self.peer = key
        self.terms = terms


class RabbitmqSocket(Socket):
    """See `Socket`. What is received waits here, and the peer is told how much of it was taken.

    Args:
        id: names the socket for both ends.
        ends: where it is.
        post: sends.
        limits: of this process.
        clock: measures how long a Go peer says nothing.
        forget: called when it ended.
    """

    def __init__(
        self, id: str, ends: Ends, post: Post, limits: Limits, clock: Clock, forget: Callable[[RabbitmqSocket], None]
    ) -> None:
        self.id = id
        self.ends = ends
        self.local = ends.queue
        self.remote = ends.key
        self.connected = True
        self.waits_since: float | None = None
        self._post = post
        self._limits = limits
        self._clock = clock
        self._forget = forget
        self._why = "the peer closed the connection"
        self._asks = False  # this end sends the requests of calls, and the peer answers each
        self._sent = self._received = self._read = 0  # messages; the last are those that were taken here
        self._ignored = False  # the peer closed without a look at the request
        self._inbox: deque[Parcel] = deque()
        self._inbox_size = 0
        self._given = 0  # bytes to send
        self._taken = 0  # of them by the peer
        self._told = 0  # how much of what the peer sent it knows to be taken
        self._receiver: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None
        self._opening: asyncio.Future[Parcel] | None = None

    # Opening

    async def open(self) -> None:
        """Ask the listener for a socket.

        Raises:
            DialFailed: it accepts no more.
            ConnectionFailed: it cannot be asked.
        """
        self._check()
        self._opening = asyncio.get_running_loop().create_future()
        await self._tell(_wire.OPEN)
        answer = await self._opening
        terms = answer.terms
        if answer.kind != _wire.ACCEPT or terms is None:
            raise DialFailed("the peer accepts no connections any more", self.remote)
        self.ends.key = self.ends.peer = answer.reply_to
        self.ends.exchange = ""
        self.ends.terms = terms

    async def accept(self) -> None:
        """Say that it is accepted."""
        await self._tell(_wire.ACCEPT)

    async def _tell(self, kind: str, offset: int = 0) -> None:
        says_terms = kind in (_wire.OPEN, _wire.ACCEPT)
        fields = {name: str(value) for name, value in _terms(self._limits)} if says_terms else {}
        properties = _wire.properties(self.id, self.ends.queue, fields, kind, offset)
        await self._post.send(self.ends.exchange, self.ends.key, properties)

    # Sending

    async def send(self, message: Message) -> None:
        self._check()
        self._limits.check(message)
        if len(message.body) > self._post.limit:
            raise TooLarge(f"message of {len(message.body)} bytes is over the server's limit of {self._post.limit}")
        terms, body = self.ends.terms, bytes(message.body)
        fields = _wire.table(message, go=terms is None)
        if terms is not None:
            terms.check(message)
            while self._given - self._taken >= max(1, terms.window):
                self._sender = asyncio.get_running_loop().create_future()
                try:
                    await self._sender
                finally:
                    self._sender = None
                self._check()
        if not self._sent:
            self._asks = not self._received and "micro-stream" not in message.headers.lowered
        cost = _wire.cost(fields, body)
        self._sent += 1
        self._given += cost  # before the peer can say that it took them
        kind = _wire.DATA if terms is not None else ""
        properties = _wire.properties(self.id, self.ends.queue, fields, kind, self._given)
        try:
            await self._post.send(self.ends.exchange, self.ends.key, properties, body)
        except ConnectionFailed as error:
            self._check()
            if isinstance(error, BackendRefused):  # it cannot be expressed, and nothing was written
                self._sent -= 1
                self._given -= cost
                raise
            self.lose(error.detail)
            raise Disconnected(error.detail, self.remote) from error

    def _check(self) -> None:
        if self._closed:
            raise Closed("the socket was closed")
        if self._lost:
            raise Disconnected(self._why, self.remote)

    # Receiving

    def arrived(self, parcel: Parcel) -> None:
        """Something came for this socket."""
        if parcel.kind in (_wire.DATA, ""):
            self._take(parcel)
        elif parcel.kind == _wire.CREDIT:
            self._taken = max(self._taken, min(parcel.offset, self._given))
            _wake(self._sender)
        elif self._opening is not None and not self._opening.done():
            self._opening.set_result(parcel)
        elif parcel.kind == _wire.CLOSE:
            self._ignored = self._asks and parcel.offset <= self._received + 1 <= self._sent
            self.lose("the peer closed the connection")

    def _take(self, parcel: Parcel) -> None:
        if self._lost or self._closed:
            return
        self._received += 1
        self._inbox.append(parcel)
        self._inbox_size += parcel.size
        limits = self._limits
        if self._inbox_size > 2 * (limits.buffer + limits.message + limits.headers):
            self._inbox.clear()
            self.lose("the peer sent more than was taken")
        _wake(self._receiver)

    async def recv(self) -> Message:
        while True:
            if self._closed:
                raise Closed("the socket was closed")
            if not self._inbox:
                if self._ignored:
                    raise Unavailable("the node closed the socket without taking the call", _ERROR_ID, executed="no")
                self._check()
                await self._wait()
            elif self._is_due(self._inbox[0]):
                await self._credit(self._inbox[0])
            else:
                parcel = self._inbox.popleft()
                self._inbox_size -= parcel.size
                self._read += 1
                return parcel.message(self._limits)

    async def _wait(self) -> None:
        if self._receiver is not None:
            raise UsageError("two tasks receive from one socket: one at a time")
        self._receiver = asyncio.get_running_loop().create_future()
        self.waits_since = self._clock.monotonic()
        try:
            await self._receiver
        finally:
            self._receiver = self.waits_since = None

    def _is_due(self, parcel: Parcel) -> bool:
        return self.connected and parcel.offset - self._told >= self._limits.buffer // _PART

    async def _credit(self, parcel: Parcel) -> None:
        """Tell the peer that a message is taken. Cancelled, it is told again with the next one."""
        try:
            await self._tell(_wire.CREDIT, parcel.offset)
        except ConnectionFailed as error:
            self.lose(error.detail)
        self._told = parcel.offset

    # The end

    def lose(self, why: str) -> None:
        """The peer is gone, or nothing reaches it any more. What came before can be received."""
        if self._lost or self._closed:
            return
        self._lost, self._why = True, why
        self._end()
        if self._on_disconnect is not None:
            asyncio.get_running_loop().call_soon(self._notify)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        opened = self.ends.terms is not None and not self._lost
        self._inbox.clear()
        self._end()
        if opened:
            await bounded(self._tell(_wire.CLOSE, self._read + 1))

    def _end(self) -> None:
        self.connected = False
        self._forget(self)
        _wake(self._receiver)
        _wake(self._sender)
        if self._opening is not None and not self._opening.done():
            self._opening.set_exception(Disconnected(self._why, self.remote))
            self._opening.exception()  # a dial that was cancelled does not look


def _terms(limits: Limits) -> list[tuple[str, int]]:
    terms = Terms.of(limits)
    return [("message", terms.message), ("headers", terms.headers), ("window", terms.window)]


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
