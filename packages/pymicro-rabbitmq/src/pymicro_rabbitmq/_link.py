"""A connection that is opened again whenever it ends."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.connection import TransportFactory
from aiormq.exceptions import ChannelClosed, ConnectionClosed, InvalidFrameError
from yarl import URL

from pymicro.errors import BackendRefused, BackendUnavailable, Closed, ConnectionFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import log
from pymicro_rabbitmq._address import Server
from pymicro_rabbitmq._errors import mapped, mapping
from pymicro_rabbitmq._options import RabbitmqOptions
from pymicro_rabbitmq._quiet import quiet
from pymicro_rabbitmq._reader import FrameReader

_FAREWELL: Final = 0.5  # seconds for the server to take leave of a connection or channel; then it is cut

#: The driver does not say what the server said then.
_CLOSED_ON_OPENING: Final = {"Connection.OpenOk", "Connection.Close"}


class Link:
    """One connection to one of several servers.

    It begins to connect when it is first asked for, and goes on until it is closed: to the next address when one
    fails, and after all failed again from the first, with a pause.

    Args:
        servers: where to connect to, in this order.
        tls: gives the context for a connection with TLS; None: there is no address with TLS.
        options: times.
        build: clock, logger, who this process is.
        purpose: what the connection is for; the server shows it.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        tls: Callable[[], ssl.SSLContext | None],
        options: RabbitmqOptions,
        build: Build,
        purpose: str,
    ) -> None:
        self._servers = servers
        self._tls = tls
        self._options = options
        self._build = build
        self._purpose = purpose
        self._next = 0
        self._failures = 0  # how often all servers failed
        self._dialled: _Dialled | None = None
        self._error: ConnectionFailed | None = None
        self._lost = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """Where it is connected, or would be."""
        return self._dialled.label if self._dialled is not None else self._servers[self._next].label

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._dialled is not None

    async def connection(self, *, patient: bool = True) -> AbstractConnection:
        """The connection; waits for one.

        Args:
            patient: False: until each address failed once.

        Raises:
            BackendRefused: the server does not let this process in. It is tried again in the background.
            BackendUnavailable: no server can be reached, for one who is not patient.
            Closed: the link was closed.
        """
        failures = self._failures
        while True:
            if self._closed:
                raise Closed("the connection was closed")
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run(), name=f"rabbitmq {self._purpose}")
            if self._dialled is not None:
                return self._dialled.connection
            if isinstance(self._error, BackendRefused):
                raise BackendRefused(self._error.detail, self._error.address) from self._error
            if not patient and self._failures > failures:
                raise self.unavailable()
            await self._changed.wait()

    def unavailable(self) -> BackendUnavailable:
        """Why there is nothing to be had in time."""
        why = self._error.detail if self._error is not None else "no answer in time"
        return BackendUnavailable(why, self._error.address if self._error is not None else self.address)

    async def blocked(self) -> bool:
        """Whether the server takes nothing from who publishes, because it is short of memory or disk."""
        if self._dialled is None:
            return False
        try:
            async with asyncio.timeout(0):
                await self._dialled.connection.ready()
        except TimeoutError:
            return True
        return False

    async def aclose(self) -> None:
        """End the connection. Bounded in time. Idempotent."""
        self._closed = True
        self._tell()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self) -> None:
        with quiet():
            await self._keep()

    async def _keep(self) -> None:
        interval = self._options.reconnect_interval
        while not self._closed:
            dialled = await self._dial()
            if dialled is None:
                self._failures += 1
                self._tell()
                await self._build.clock.sleep(interval * random.uniform(0.9, 1.0))
                continue
            began = time.monotonic()
            try:
                self._up(dialled)
                error = await dialled.end()
            finally:
                self._dialled = None
                await dialled.close()
            self._down(error)
            if time.monotonic() - began < interval:
                await self._build.clock.sleep(interval)  # a server that ends every connection is not to be pestered

    async def _dial(self) -> _Dialled | None:
        """A connection to the next server that takes one; None when all failed."""
        for _ in self._servers:
            server = self._servers[self._next]
            dialled = _Dialled(server, self._tls() if server.tls else None)
            try:
                url = _url(server, heartbeat=self._options.heartbeat, name=self._name())
                await dialled.connect(url, self._options.connect_timeout)
                return dialled
            except ConnectionFailed as error:
                self._next = (self._next + 1) % len(self._servers)
                self._down(error)
        return None

    def _name(self) -> str:
        return f"{self._build.identity.node_id} {self._purpose}"

    def _up(self, dialled: _Dialled) -> None:
        self._dialled, self._error = dialled, None
        if self._lost:
            self._lost = False
            log(self._build.logger, logging.INFO, "connected again", purpose=self._purpose, address=dialled.label)
        self._tell()

    def _down(self, error: ConnectionFailed) -> None:
        self._error = error
        if not self._lost:
            self._lost = True
            log(
                self._build.logger,
                logging.WARNING,
                "no connection",
                purpose=self._purpose,
                address=error.address,
                error=error.detail,
            )
        self._tell()


def _url(server: Server, *, heartbeat: int, name: str) -> URL:
    user, password, vhost = (quote(text, safe="") for text in (server.username, server.password, server.vhost))
    return URL(
        f"{'amqps' if server.tls else 'amqp'}://{user}:{password}@{server.label}/{vhost}"
        f"?heartbeat={heartbeat}&name={quote(name, safe='')}",
        encoded=True,
    )


class _Connection(aiormq.Connection):
    """A connection of a link."""

    of_link: Final = True


class _Dialled(TransportFactory):
    """One connection, and the socket below it: the driver waits for a server that hangs, and this does not."""

    def __init__(self, server: Server, context: ssl.SSLContext | None) -> None:
        self._server = server
        self._context = context
        self._reader = FrameReader()
        self._writer: asyncio.StreamWriter | None = None
        self.connection: AbstractConnection

    @property
    def label(self) -> str:
        return self._server.label

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Called by the driver."""
        loop, reader = asyncio.get_running_loop(), self._reader
        transport, protocol = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader), self._server.host, self._server.port, ssl=self._context
        )
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return reader, self._writer

    async def connect(self, url: URL, timeout: float) -> None:
        """Connect and log in.

        Raises:
            BackendUnavailable, BackendRefused: it was not possible.
        """
        self.connection = _Connection(url, transport_factory=self)
        connecting = asyncio.ensure_future(self.connection.connect())
        try:
            await asyncio.wait([connecting], timeout=timeout)
        finally:
            if not connecting.done():
                self._cut()
                await ended(connecting)
        with mapping(self.label):
            if connecting.cancelled():
                raise TimeoutError
            try:
                connecting.result()
            except InvalidFrameError as error:
                if not set(re.findall(r"Connection\.\w+", str(error))) >= _CLOSED_ON_OPENING:
                    raise
                raise BackendRefused(
                    f"the server does not open virtual host {self._server.vhost!r} for user "
                    f"{self._server.username!r}: it does not exist, or that is not allowed",
                    self.label,
                ) from error
        self._reader.most = self.connection.connection_tune.frame_max or math.inf

    async def end(self) -> ConnectionFailed:
        """Wait until the connection is over; why it is."""
        closing = self.connection.closing
        await asyncio.wait([closing])
        error = closing.exception() if not closing.cancelled() else None
        return mapped(error or ConnectionError("the connection was closed"), self.label)

    async def close(self) -> None:
        """End it, politely if the server listens."""
        closing = asyncio.ensure_future(self.connection.close(ConnectionClosed(200, "closed")))
        try:
            await asyncio.wait([closing], timeout=_FAREWELL)
        finally:
            if not closing.done():
                self._cut()
                await asyncio.wait([closing], timeout=_FAREWELL)
            if not closing.done():
                await ended(closing)

    def _cut(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


async def ended(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait for it."""
    task.cancel()
    await asyncio.wait([task], timeout=_FAREWELL)


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel; the server gives back what is unsettled. Bounded in time."""
    await bounded(channel.close(ChannelClosed(200, "closed")))


async def bounded(step: Awaitable[Any]) -> None:
    """Wait for a step of the leave-taking, not for long; what goes wrong with it is of no interest any more."""
    task = asyncio.ensure_future(step)
    try:
        await asyncio.wait([task], timeout=_FAREWELL)
    finally:
        if not task.done():
            await ended(task)
        elif not task.cancelled():
            task.exception()
