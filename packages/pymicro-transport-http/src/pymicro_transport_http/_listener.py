"""The listening side: accepts connections, gives each a task, ends those that idle."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket as _socket
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from pymicro.clock import TimerHandle
from pymicro.errors import Closed, ConfigurationError, ConnectionFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, join_address, log, split_address
from pymicro.transport import Accept, Listener
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._protocol import RequestParser
from pymicro_transport_http._socket import CLOSE_TIMEOUT, HttpSocket, address_of

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: "

#: Seconds to wait when a connection cannot be accepted.
_ACCEPT_PAUSE: Final = 1.0

#: Looks at the connections within the shorter time-out; they may last longer by the time between two.
_LOOKS: Final = 4


class _Watched:
    """What is known of a connection's past, so that its time-outs cost nothing per message."""

    __slots__ = ("activity", "head_since", "received", "since")

    def __init__(self, now: float) -> None:
        self.activity = 0
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
            sock = await _bind(host, ports)
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
        return HttpSocket(parser, _HEAD, build.limits, serving=True, logger=build.logger, on_made=self._connected)

    def _connected(self, socket: HttpSocket) -> None:
        self._watch(socket)
        self._own(self._serve(socket), f"http socket {socket.remote}")

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, socket: HttpSocket) -> None:
        try:
            await self._accept(socket)
        except (ConnectionFailed, Closed) as error:
            log(self._build.logger, logging.DEBUG, "connection ended", remote=socket.remote, error=str(error))
        except Exception as error:
            log(self._build.logger, logging.ERROR, "connection failed", remote=socket.remote, error=repr(error))
        finally:
            await socket.aclose()
            del self._sockets[socket]

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
        if socket.activity != watched.activity or not socket.at_rest:
            watched.activity = socket.activity
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
        if self._server is not None:
            self._server.close()
        if self._acceptor is not None:
            self._acceptor.cancel()
            await asyncio.wait([self._acceptor])
        if self._bound is not None:
            self._bound.close()

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
        await asyncio.gather(*(socket.aclose() for socket in self._sockets))
        self._handshaking.clear()
        self._sockets.clear()


async def _bind(host: str, ports: range) -> _socket.socket:
    """A socket bound to the first free port. A host with several addresses gives its first IPv4 one, as in Go."""
    family, ip = await _resolve(host or "0.0.0.0")
    for port in ports:
        sock = _socket.socket(family, _socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if family == _socket.AF_INET6:
                sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            sock.bind((ip, port))
            sock.listen()  # on Linux two may bind to a port on which nobody listens
            return sock
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError(f"port {port} on {ip}: {_bind_problem(error)}") from error
    which = f"port {ports[0]} on {ip} is" if len(ports) == 1 else f"all ports {ports[0]}-{ports[-1]} on {ip} are"
    raise ConfigurationError(f"{which} in use: choose another with --server_address")


def _bind_problem(error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return error.strerror or str(error)


async def _resolve(host: str) -> tuple[_socket.AddressFamily, str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=_socket.SOCK_STREAM, flags=_socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(f"host {host!r} cannot be resolved: {error}") from error
    family, _, _, _, name = min(found, key=lambda entry: entry[0] != _socket.AF_INET)
    return family, str(name[0])
