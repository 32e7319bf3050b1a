"""The listening side: a subject, and a socket for each client that sends to it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final

from pymicro.errors import ConfigurationError, ProtocolViolation, PymicroError, Unavailable, to_wire
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build
from pymicro.plugins.toolkit import backoff, log
from pymicro.transport import Accept, Listener
from pymicro_nats.connection import Session, unanswered
from pymicro_transport_nats import _envelope
from pymicro_transport_nats._frames import ASK, CLOSE, DATA, FRAME, OPEN, SIZE, WINDOW
from pymicro_transport_nats._hub import FRAMES, Hub
from pymicro_transport_nats._socket import ERROR_ID, NatsSocket

#: Sockets of one listener; each is a task.
_MOST_SOCKETS: Final = 65_536

#: Seconds for telling the server that nobody listens any more.
_LEAVE_TIME: Final = 1.0

#: Seconds before the first and before later attempts to listen again, at most.
_FIRST_RETRY: Final = 0.05
_LONGEST_RETRY: Final = 1.0


class NatsListener(Listener):
    """Listens at a subject, and again after the connection was lost.

    Args:
        address: the subject.
        accept: see `Transport.listen`.
        connect: the connection that works now.
        build: limits, clock, logger.
        frames: whether pymicro peers are offered frames.
    """

    def __init__(
        self, address: str, accept: Accept, connect: Callable[[], Awaitable[Hub]], build: Build, *, frames: bool
    ) -> None:
        self.addresses: Sequence[str] = (address,)
        self._address = address
        self._accept = accept
        self._connect = connect
        self._build = build
        self._frames = frames
        self._context = copy_context()
        self._sockets: dict[bytes, NatsSocket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = True
        self._life = b""
        self._hub: Hub | None = None
        self._subscriptions: list[Any] = []
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, hub: Hub) -> None:
        """Begin to listen.

        Raises:
            ConfigurationError: somebody listens there already.
            BackendUnavailable, BackendRefused: the connection is gone, or the server says no.
        """
        if self._frames and not unanswered(await hub.session.request(self._address + FRAMES, ASK)):
            raise ConfigurationError(f"NATS subject {self._address!r} is in use: choose another with --server_address")
        await self._attach(hub)
        self._keeper = asyncio.get_running_loop().create_task(self._keep(hub), name=f"nats listener {self._address}")

    async def _attach(self, hub: Hub) -> None:
        self._hub, self._life, self._subscriptions = hub, secrets.token_bytes(8), []
        session = hub.session
        try:
            if self._frames:
                self._subscriptions.append(await hub.tap(self._address + FRAMES, self._framed))
            self._subscriptions.append(await hub.tap(self._address, self._plain))
        except BaseException:
            await self._detach(session)
            raise

    async def _detach(self, session: Session) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await session.forget(subscription)

    async def _keep(self, hub: Hub) -> None:
        """Listen again, on the next connection. The sockets of the former are lost."""
        while True:
            await hub.session.lost.wait()
            failures = 0
            while True:
                try:
                    async with asyncio.timeout(self._build.timeout):
                        hub = await self._connect()
                        await self._attach(hub)
                    break
                except (TimeoutError, PymicroError) as error:
                    if not failures:
                        log(
                            self._build.logger,
                            logging.WARNING,
                            "nats subject lost",
                            subject=self._address,
                            error=str(error),
                        )
                    failures += 1
                await self._build.clock.sleep(backoff(failures, first=_FIRST_RETRY, longest=_LONGEST_RETRY))
            if failures:
                log(self._build.logger, logging.INFO, "nats subject works again", subject=self._address)

    # what arrives

    def _framed(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        hub = self._hub
        socket = self._sockets.get(reply)
        if hub is None or not reply or reply.startswith(b"$") or not reply.isascii() or len(data) < SIZE:
            return
        if socket is not None:
            hub.give(socket, data)
            return
        kind, constant, added = FRAME.unpack_from(data)
        if data == ASK:
            hub.answer_alive(reply, window=self._build.limits.buffer, accepting=self._accepting, life=self._life)
        elif kind == OPEN and len(data) >= SIZE + WINDOW.size:
            self._open(hub, reply, data, constant, added)
        elif kind == DATA:  # of a socket that is over
            self._refuse(hub, reply, taken=0xFFFFFFFF)

    def _open(self, hub: Hub, reply: bytes, data: bytes, constant: int, added: int) -> None:
        if not self._takes_more:
            self._refuse(hub, reply, refused=1)
            return
        (window,) = WINDOW.unpack_from(data, SIZE)
        socket = hub.accepted_framed(reply.decode(), window)
        self._serve(reply, socket)
        try:
            socket.take_message(data, SIZE + WINDOW.size, constant, added)
        except ProtocolViolation as fault:
            socket.lose(fault)

    def _refuse(self, hub: Hub, reply: bytes, *, taken: int = 0, refused: int = 0) -> None:
        hub.session.write(b"PUB %b %d\r\n%b\r\n" % (reply, SIZE, FRAME.pack(CLOSE, taken, refused)))

    def _plain(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        hub = self._hub
        if hub is None or not reply or reply.startswith(b"$") or not reply.isascii():
            return
        socket = self._sockets.get(reply)
        if socket is None:
            if not self._takes_more:
                self._refuse_plain(hub, reply, data)
                return
            socket = hub.accepted_plain(reply.decode())
            self._serve(reply, socket)
        hub.give(socket, data)

    def _refuse_plain(self, hub: Hub, reply: bytes, data: bytes) -> None:
        """Tell a Go client, which would wait for its time-out."""
        with suppress(PymicroError):
            id = _envelope.read(data).headers.lowered.get("micro-id", "")
            error = Unavailable("the node accepts no more calls", ERROR_ID, executed="no")
            payload = _envelope.write(Message(Headers({"Micro-Error": to_wire(error)})), id)
            hub.session.write(b"PUB %b %d\r\n%b\r\n" % (reply, len(payload), payload))

    @property
    def _takes_more(self) -> bool:
        return self._accepting and len(self._sockets) < _MOST_SOCKETS

    def _serve(self, reply: bytes, socket: NatsSocket) -> None:
        self._sockets[reply] = socket
        task = asyncio.get_running_loop().create_task(
            self._run(reply, socket), name=f"nats accept {socket.remote}", context=self._context.copy()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, reply: bytes, socket: NatsSocket) -> None:
        try:
            await self._accept(socket)
        except Exception as error:
            log(self._build.logger, logging.ERROR, "connection failed", remote=socket.remote, error=repr(error))
        finally:
            if self._sockets.get(reply) is socket:
                del self._sockets[reply]
            await socket.aclose()

    # the end

    async def stop_accepting(self) -> None:
        self._accepting = False

    async def aclose(self) -> None:
        self._accepting = False
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        hub = self._hub
        if hub is not None and self._subscriptions:
            with suppress(TimeoutError, PymicroError):  # without an answer nobody is heard either
                async with asyncio.timeout(_LEAVE_TIME):
                    await self._detach(hub.session)
                    await hub.session.written()
