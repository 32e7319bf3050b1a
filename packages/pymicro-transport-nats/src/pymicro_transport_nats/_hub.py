"""All sockets of one connection, and the question whether their peers are there."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from typing import Any

from pymicro.errors import Disconnected, ProtocolViolation, PymicroError
from pymicro.plugins import Build
from pymicro.plugins.toolkit import log
from pymicro_nats.connection import Session, Tap, unanswered
from pymicro_transport_nats._framed import FramedSocket
from pymicro_transport_nats._frames import ASK, FRAME, PONG, SIZE, Reader
from pymicro_transport_nats._options import NatsTransportOptions
from pymicro_transport_nats._plain import PlainSocket
from pymicro_transport_nats._socket import NatsSocket

#: What is put behind the subject of a node, for frames; and behind that of a client, to ask whether it is there.
FRAMES = ".pymicro"
_ALIVE = "alive"


class Hub:
    """The sockets of one connection.

    Args:
        session: the connection.
        build: limits, clock, logger.
        options: times and bounds.

    Attributes:
        sockets: those that are open.
        reader: of headers, for all sockets.
        name: of this side, for people.
    """

    def __init__(self, session: Session, build: Build, options: NatsTransportOptions) -> None:
        self.session, self.limits, self.clock = session, build.limits, build.clock
        self.loop = asyncio.get_running_loop()
        self.sockets: set[NatsSocket] = set()
        self.reader = Reader()
        self._logger = build.logger
        self._options = options
        self.name = session.new_inbox()
        self._prefix = len(self.name) + 1
        self._numbers = itertools.count(1)
        self._clients: dict[bytes, NatsSocket] = {}
        self._names: dict[NatsSocket, bytes] = {}
        self._subscription: Any = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen to answers.

        Raises:
            BackendUnavailable, BackendRefused: the connection is gone, or the server says no.
        """
        self._subscription = await self.tap(f"{self.name}.*", self._arrived)
        self.session.on_lost(self._lost)
        if self.session.lost.is_set():
            self._lost()
            raise self.session.reason

    async def aclose(self) -> None:
        """Close every socket, and end the task. Bounded in time by what the caller allows."""
        self.session.off_lost(self._lost)
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        await asyncio.gather(*(socket.aclose() for socket in list(self.sockets)))

    # sockets

    def open_framed(self, address: str, credit: int, life: bytes) -> FramedSocket:
        """A socket to a pymicro node."""
        name, here = self._new_name()
        there = address + FRAMES
        socket = FramedSocket(self, there, here, address, credit=credit, peer=there, life=life)
        self._clients[name] = socket
        self._names[socket] = name
        self.watch()
        return socket

    def open_plain(self, address: str) -> PlainSocket:
        """A socket to a Go node."""
        name, here = self._new_name()
        options = self._options
        socket = PlainSocket(
            self, address, here, address, max_unread=options.max_unread, idle_timeout=options.idle_timeout
        )
        self._clients[name] = socket
        self._names[socket] = name
        return socket

    def _new_name(self) -> tuple[bytes, str]:
        number = next(self._numbers)
        return str(number).encode(), f"{self.name}.{number}"

    def accepted_framed(self, client: str, credit: int) -> FramedSocket:
        """A socket that a pymicro client opened."""
        peer = f"{client.rpartition('.')[0]}.{_ALIVE}"
        self.watch()
        return FramedSocket(self, client, "", client, credit=credit, peer=peer)

    def accepted_plain(self, client: str) -> PlainSocket:
        """A socket that a Go client opened."""
        options = self._options
        return PlainSocket(self, client, "", client, max_unread=options.max_unread, idle_timeout=options.idle_timeout)

    def forget(self, socket: NatsSocket) -> None:
        """The socket ended."""
        self.sockets.discard(socket)
        name = self._names.pop(socket, None)
        if name is not None:
            del self._clients[name]

    def give(self, socket: NatsSocket, data: bytes) -> None:
        """Hand a payload to its socket; one that makes no sense ends it."""
        try:
            socket.take(data)
        except ProtocolViolation as fault:
            socket.lose(fault)

    async def tap(self, subject: str, function: Tap) -> Any:
        """Subscribe, so that no message can end the task that reads for all; the driver's subscription.

        Raises:
            BackendUnavailable, BackendRefused: the connection is gone, or the server says no.
        """

        def guarded(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
            try:
                function(subject, reply, data, headers)
            except Exception as error:
                log(self._logger, logging.ERROR, "nats message failed", exc_info=error, error=repr(error))

        return await self.session.tap(subject, guarded)

    def answer_alive(self, reply: bytes, *, window: int = 0, accepting: bool = False, life: bytes = b"") -> None:
        """Answer the question whether this side is there."""
        payload = FRAME.pack(PONG, window, accepting) + life
        self.session.write(b"PUB %b %d\r\n%b\r\n" % (reply, len(payload), payload))

    # what arrives

    def _arrived(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        socket = self._clients.get(subject[self._prefix :])
        if socket is None:
            if data == ASK and reply and subject.endswith(b".alive"):
                self.answer_alive(reply)
        elif headers is not None and not data:
            socket.unheard()  # the server says that nobody listens
        else:
            self.give(socket, data)

    def _lost(self) -> None:
        for socket in list(self.sockets):
            socket.lose(Disconnected(str(self.session.reason), socket.remote))

    # are they there

    def watch(self) -> None:
        """Look for peers from now on."""
        if self._watcher is None:
            # It serves all sockets and gets nothing of the context of the first.
            self._watcher = self.loop.create_task(
                self._watch(), name=f"nats peers {self.name}", context=contextvars.Context()
            )

    async def _watch(self) -> None:
        while not self.session.lost.is_set():
            await self.clock.sleep(self._options.peer_interval)
            peers: dict[tuple[str, bytes], list[FramedSocket]] = {}
            for socket in self.sockets:
                if isinstance(socket, FramedSocket):
                    peers.setdefault((socket.peer, socket.life), []).append(socket)
            await asyncio.gather(*(self._look_for(peer, life, of) for (peer, life), of in peers.items()))

    async def _look_for(self, peer: str, life: bytes, sockets: list[FramedSocket]) -> None:
        """A peer whose connection ended is gone. One that only says nothing may be busy, and calls have deadlines."""
        try:
            async with asyncio.timeout(self._options.peer_interval):
                answer = await self.session.request(peer, ASK)
        except (TimeoutError, PymicroError):
            return
        if unanswered(answer) or answer.data[SIZE:] != life:
            for socket in sockets:
                socket.lose(Disconnected("the peer is gone", socket.remote))
