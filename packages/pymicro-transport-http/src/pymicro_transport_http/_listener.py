"""The listening side: accepts connections, gives each a task, ends those that idle."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket as _socket
from collections.abc import Coroutine, Sequence
from contextvars import copy_context
from typing import Any, Final

from pymicro.clock import TimerHandle
from pymicro.errors import Closed, ConnectionFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, bind, join_address, log, split_address
from pymicro.transport import Accept, Listener, Socket
from pymicro_transport_http._channel import Channel
from pymicro_transport_http._channels import CLOSE_TIMEOUT, Channels
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._protocol import RequestParser
from pymicro_transport_http._socket import HttpSocket, address_of

_HEAD: Final = b"HTTP/1.1 200 OK\r\n"

#: Seconds to wait when a connection cannot be accepted.
_ACCEPT_PAUSE: Final = 1.0

#: Looks at the connections within the shorter time-out; they may last longer by the time between two.
_LOOKS: Final = 4


class _Watched:
    """What is known of a connection's past, so that its time-outs cost nothing per message."""

    __slots__ = ("head_since", "progress", "received", "since")

    def __init__(self, now: float) -> None:
        self.progress = 0
        self.since = now
        self.received = 0
        self.head_since = now


class HttpListener(Listener):
    """Accepts connections and runs `accept` for each in a task of its own.

    Args:
        accept: see `Transport.listen`.
        options: time-outs.
        build: limits, clock and logger.
        tls: the context for handshakes; None for plain connections.
    """

    def __init__(self, accept: Accept, options: HttpOptions, build: Build, tls: TLSContext | None) -> None:
        self.addresses: Sequence[str] = ()
        self._accept = accept
        self._options = options
        self._build = build
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._accepting = True
        self.takes_channels = options.channels
        self.process = secrets.token_hex(8).encode()
        self._server: asyncio.Server | None = None
        self._acceptor: asyncio.Task[None] | None = None
        self._bound: _socket.socket | None = None
        self._handshaking: set[_socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: dict[HttpSocket, _Watched] = {}
        self._timer: TimerHandle | None = None
        timeouts = [seconds for seconds in (options.header_timeout, options.idle_timeout) if seconds > 0]
        self._period = min(timeouts) / _LOOKS if timeouts else 0.0

    async def start(self, address: str, sock: _socket.socket | None) -> None:
        """Begin to accept; see `Transport.listen` for the arguments and errors."""
        host = ""
        if sock is None:
            host, ports = split_address(address)
            sock = await bind(host, ports)
        sock.setblocking(False)
        bound, port = sock.getsockname()[:2]
        self.addresses = (join_address(host or bound, port),)
        if self._tls is None:
            self._server = await self._loop.create_server(self._protocol, sock=sock, backlog=self._options.backlog)
            return
        sock.listen(self._options.backlog)
        self._bound = sock
        self._acceptor = self._loop.create_task(self._accept_tls(sock, self._tls), name="http accept")

    def _protocol(self) -> HttpSocket:
        build = self._build
        parser = RequestParser(build.limits, "")
        return HttpSocket(parser, _HEAD, build.limits, logger=build.logger, keeper=self)

    # what sockets tell: `_socket.Keeper`

    def made(self, socket: HttpSocket) -> None:
        """See `Keeper`."""
        self._watch(socket)
        if len(self._sockets) > self._options.max_connections:
            socket.expire(f"{self._options.max_connections} connections are open, the limit")

    def began(self, socket: HttpSocket) -> None:
        """See `Keeper`."""
        self._own(self._serve(socket), f"http socket {socket.remote}")

    def switched(self, socket: HttpSocket, transport: asyncio.Transport, window: int) -> Channels:
        """See `Keeper`."""
        return Channels(
            transport,
            self._build.limits,
            window,
            local=socket.local,
            remote=socket.remote,
            accept=self._opened,
            on_lost=socket.connection_lost,
        )

    def lost(self, socket: HttpSocket) -> None:
        """See `Keeper`."""
        del self._sockets[socket]

    def _opened(self, channel: Channel) -> bool:
        if self._accepting:
            self._own(self._serve(channel), f"http channel {channel.number} of {channel.remote}")
        return self._accepting

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # this may run in a caller's context, whose variables are none of the handlers' business
        task = self._loop.create_task(work, name=name, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, socket: Socket) -> None:
        try:
            await self._accept(socket)
        except (ConnectionFailed, Closed) as error:
            log(self._build.logger, logging.DEBUG, "connection ended", remote=socket.remote, error=str(error))
        except Exception as error:
            log(self._build.logger, logging.ERROR, "connection failed", remote=socket.remote, error=repr(error))
        finally:
            await socket.aclose()

    async def _accept_tls(self, sock: _socket.socket, tls: TLSContext) -> None:
        """What `create_server` does, with a context for each handshake, so that new certificates are used."""
        while True:
            try:
                connection, peer = await self._loop.sock_accept(sock)
            except OSError as error:  # most likely out of file descriptors: asyncio's own servers wait as long
                log(self._build.logger, logging.ERROR, "cannot accept", error=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            self._handshaking.add(connection)
            self._own(self._handshake(connection, tls, address_of(peer)), "http handshake")

    async def _handshake(self, connection: _socket.socket, tls: TLSContext, remote: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=tls.get(),
                ssl_handshake_timeout=self._options.header_timeout or None,
                ssl_shutdown_timeout=CLOSE_TIMEOUT,
            )
        except OSError as error:
            log(self._build.logger, logging.DEBUG, "TLS handshake failed", remote=remote, error=str(error))
            connection.close()
        self._handshaking.discard(connection)

    # time-outs

    def _watch(self, socket: HttpSocket) -> None:
        self._sockets[socket] = _Watched(self._build.clock.monotonic())
        if self._period and self._timer is None:
            self._timer = self._build.clock.call_later(self._period, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._build.clock.monotonic()
        for socket, watched in [*self._sockets.items()]:
            self._check(socket, watched, now)
        if self._sockets:
            self._timer = self._build.clock.call_later(self._period, self._look)

    def _check(self, socket: HttpSocket, watched: _Watched, now: float) -> None:
        header, idle = self._options.header_timeout, self._options.idle_timeout
        if socket.progress != watched.progress or not socket.at_rest:
            watched.progress = socket.progress
            watched.since = now
        elif idle > 0 and now - watched.since >= idle:
            socket.expire(f"idle for {idle:g} s")
            return
        if socket.received != watched.received or not socket.head_pending:
            watched.received = socket.received
            watched.head_since = now
        elif header > 0 and now - watched.head_since >= header:
            socket.expire(f"no request head within {header:g} s")

    # closing

    async def stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            for socket in self._sockets:
                socket.leave()
        if self._server is not None:
            await self._finish_accepting(self._server)
            self._server.close()
        if self._acceptor is not None:
            self._acceptor.cancel()
            await asyncio.wait([self._acceptor])
        if self._bound is not None:
            self._bound.close()

    async def _finish_accepting(self, server: asyncio.Server) -> None:
        """Let connections that were accepted become sockets: asyncio's own loop drops them when the server closes."""
        if isinstance(self._loop, asyncio.SelectorEventLoop):
            for sock in server.sockets:
                self._loop.remove_reader(sock.fileno())
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self.stop_accepting()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while tasks := [*self._tasks]:  # a handshake that ends now brings another one
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        # what is left belonged to tasks that were cancelled before their first step
        for connection in self._handshaking:
            connection.close()
        self._handshaking.clear()
        await asyncio.gather(*(socket.aclose() for socket in self._sockets))
