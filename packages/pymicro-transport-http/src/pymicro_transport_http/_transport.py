"""Go Micro's HTTP transport: dialling and listening."""

from __future__ import annotations

import asyncio
import socket as _socket
import ssl
import weakref
from typing import Final, Literal

from pymicro.errors import Closed, ConfigurationError, DialFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, join_address, split_address
from pymicro.record import Node
from pymicro.transport import Accept, Listener, Socket, Transport
from pymicro_transport_http._listener import HttpListener
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._protocol import ResponseParser
from pymicro_transport_http._socket import CLOSE_TIMEOUT, HttpSocket

#: HTTP/2 is not offered: over it go-micro servers lose responses.
_ALPN: Final = ("http/1.1",)

#: What OpenSSL says when the other side answers a handshake with something else.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"})


class HttpTransport(Transport):
    """Messages as HTTP/1.1 requests and responses, on one full-duplex connection per socket.

    Follows go-micro `transport/http_transport.go`. Works on asyncio's and uvloop's event loops.

    Args:
        options: time-outs and backlog; None for the defaults.
        build: limits, TLS, clock and logger; None for the defaults.
    """

    name = "http"

    def __init__(self, options: HttpOptions | None = None, build: Build | None = None) -> None:
        self._options = options or HttpOptions()
        self._build = build or Build()
        self._client_tls: TLSContext | None = None
        self._listeners: weakref.WeakSet[HttpListener] = weakref.WeakSet()
        self._sockets: weakref.WeakSet[HttpSocket] = weakref.WeakSet()

    async def _open(self) -> None:
        if self._build.tls.enabled:
            self._client_tls = self._context("client")

    def _context(self, side: Literal["client", "server"]) -> TLSContext:
        build = self._build
        return TLSContext(build.tls, side, alpn=_ALPN, clock=build.clock, logger=build.logger)

    async def dial(self, node: Node, *, timeout: float) -> Socket:
        self.require_open()
        address = node.address
        host, port = _target(address)
        try:
            async with asyncio.timeout(timeout):
                socket = await self._connect(host, port)
        except TimeoutError as error:
            raise DialFailed(f"no connection within {timeout:g} s", address) from error
        except OSError as error:
            raise DialFailed(_problem(error), address) from error
        if not self.is_open:
            await socket.aclose()
            raise Closed("the transport was closed")
        self._sockets.add(socket)
        return socket

    async def _connect(self, host: str, port: int) -> HttpSocket:
        address = join_address(host, port)
        head = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: " % address.encode()
        limits = self._build.limits

        def protocol() -> HttpSocket:
            parser = ResponseParser(limits, address)
            return HttpSocket(parser, head, limits, serving=False, logger=self._build.logger)

        loop = asyncio.get_running_loop()
        if self._client_tls is None:
            _, socket = await loop.create_connection(protocol, host, port)
        else:
            _, socket = await loop.create_connection(
                protocol,
                host,
                port,
                ssl=self._client_tls.get(),
                server_hostname=host,
                ssl_shutdown_timeout=CLOSE_TIMEOUT,
            )
        return socket

    async def listen(self, address: str, accept: Accept, *, sock: _socket.socket | None = None) -> Listener:
        self.require_open()
        tls = self._context("server") if self._build.tls.enabled else None
        listener = HttpListener(accept, self._options, self._build, tls)
        self._listeners.add(listener)
        await listener.start(address, sock)
        return listener

    async def _close(self) -> None:
        closing = [listener.aclose() for listener in self._listeners] + [socket.aclose() for socket in self._sockets]
        await asyncio.gather(*closing)


def _target(address: str) -> tuple[str, int]:
    """Host and port to dial; the host goes into the head of every request, so it must be clean."""
    try:
        host, ports = split_address(address)
        if ":" not in host:
            host = host.encode("idna").decode()
    except (ConfigurationError, UnicodeError) as error:
        raise DialFailed(f"not an address: {error}", address) from error
    if not host or not ports[0] or len(ports) > 1 or not host.isprintable() or " " in host:
        raise DialFailed("not an address: write host:port", address)
    return host, ports[0]


def _problem(error: OSError) -> str:
    """What a person should read about a failed connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the TLS certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason in _NOT_TLS:
            return f"the peer does not speak TLS and this side does: configure both sides alike ({error.reason})"
        return f"TLS handshake failed: {error.reason or error}"
    if isinstance(error, _socket.gaierror):
        return f"the host cannot be resolved: {error.strerror}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return f"no connection: {error}"
