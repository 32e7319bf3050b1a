"""The listening side: accepts connections, gives each a task, ends those that idle."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket as _socket
from collections.abc import Sequence
from typing import Final

from pymicro.clock import TimerHandle
from pymicro.errors import Closed, ConfigurationError, ConnectionFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, join_address, log, split_address
from pymicro.transport import Accept, Listener
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._protocol import RequestParser
from pymicro_transport_http._socket import CLOSE_TIMEOUT, HttpSocket

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: "

#: Looks at the connections per time-out: one may last a quarter longer than its time-out says.
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
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: dict[HttpSocket, _Watched] = {}
        self._timer: TimerHandle | None = None
        timeouts = [seconds for seconds in (options.header_timeout, options.idle_timeout) if seconds > 0]
        self._period = min(timeouts) / _LOOKS if timeouts else 0.0

    async def start(self, address: str, sock: _socket.socket | None) -> None:
        """Begin to accept; see `Transport.listen` for the arguments and errors."""
        host = ""
        if sock is None:
            host, ports = split_address(address)
            sock = await _bind(host, ports, self._options.backlog)
        else:
            sock.setblocking(False)
        bound, port = sock.getsockname()[:2]
        self._server = await self._loop.create_server(self._protocol, sock=sock, backlog=self._options.backlog)
        self.addresses = (join_address(host or bound, port),)

    def _protocol(self) -> HttpSocket:
        build = self._build
        parser = RequestParser(build.limits, "")
        return HttpSocket(parser, _HEAD, build.limits, serving=True, logger=build.logger, on_made=self._connected)

    def _connected(self, socket: HttpSocket) -> None:
        raw = socket.detach() if self._tls is not None else None
        if raw is not None:
            raw.pause_reading()  # the handshake belongs to the TLS layer that is put in between
        task = self._loop.create_task(self._serve(socket, raw), name=f"http accept {socket.remote}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, socket: HttpSocket, raw: asyncio.Transport | None) -> None:
        try:
            if raw is not None and not await self._handshake(socket, raw):
                return
            self._watch(socket)
            await self._accept(socket)
        except (ConnectionFailed, Closed) as error:
            log(self._build.logger, logging.DEBUG, "connection ended", remote=socket.remote, error=str(error))
        except Exception as error:
            log(self._build.logger, logging.ERROR, "connection failed", remote=socket.remote, error=repr(error))
        finally:
            self._watched.pop(socket, None)
            await socket.aclose()

    async def _handshake(self, socket: HttpSocket, raw: asyncio.Transport) -> bool:
        assert self._tls is not None
        try:
            transport = await self._loop.start_tls(
                raw,
                socket,
                self._tls.get(),
                server_side=True,
                ssl_handshake_timeout=self._options.header_timeout or None,
                ssl_shutdown_timeout=CLOSE_TIMEOUT,
            )
        except OSError as error:
            log(self._build.logger, logging.DEBUG, "TLS handshake failed", remote=socket.remote, error=str(error))
            transport = None
        except asyncio.CancelledError:
            raw.abort()
            raise
        if transport is None:
            raw.abort()
            return False
        socket.attach(transport)
        return True

    # time-outs

    def _watch(self, socket: HttpSocket) -> None:
        if self._period:
            self._watched[socket] = _Watched(self._build.clock.monotonic())
            if self._timer is None:
                self._timer = self._build.clock.call_later(self._period, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._build.clock.monotonic()
        for socket, watched in [*self._watched.items()]:
            self._check(socket, watched, now)
        if self._watched:
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

    async def aclose(self) -> None:
        await self.stop_accepting()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _bind(host: str, ports: range, backlog: int) -> _socket.socket:
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
            sock.listen(backlog)  # a second bind succeeds on Linux while nobody listens
            sock.setblocking(False)
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
