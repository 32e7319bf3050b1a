"""Go Micro's HTTP transport: dialling and listening."""

from __future__ import annotations

import asyncio
import socket as _socket
import weakref
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from pymicro.errors import Closed, ConfigurationError, DialFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, connection_problem, join_address, split_address
from pymicro.record import Node
from pymicro.transport import Accept, Listener, Socket, Transport
from pymicro_transport_http._channels import CLOSE_TIMEOUT
from pymicro_transport_http._listener import HttpListener
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._protocol import ResponseParser
from pymicro_transport_http._shared import SharedConnections
from pymicro_transport_http._socket import HttpSocket

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)

#: What the metadata of nodes says that take channels.
CHANNELS_KEY: Final = "channels"
CHANNELS_VERSION: Final = "1"

#: HTTP/2 is not offered: over it go-micro servers lose responses.
_ALPN: Final = ("http/1.1",)


class HttpTransport(Transport):
    """Messages as HTTP/1.1 requests and responses, on one full-duplex connection per socket.

    Follows go-micro `transport/http_transport.go`. Works on asyncio's and uvloop's event loops.

    Args:
        options: time-outs and backlog; None for the defaults.
        build: limits, TLS, clock and logger; None for the defaults.
    """

    name = "http"
    takes_socket = True

    def __init__(self, options: HttpOptions | None = None, build: Build | None = None) -> None:
        self._options = options or HttpOptions()
        self._build = build or Build()
        self._client_tls: TLSContext | None = None
        self._shared: SharedConnections | None = None
        if self._options.channels:
            self.node_metadata = {CHANNELS_KEY: CHANNELS_VERSION}
        self._listeners: weakref.WeakSet[HttpListener] = weakref.WeakSet()
        self._sockets: weakref.WeakSet[HttpSocket] = weakref.WeakSet()

    async def _open(self) -> None:
        # glibc keeps freed memory only up to twice the largest block that it has seen come and go. Without this one it
        # hands the buffers of 64 KiB messages back to the kernel, and a third of such a call is faulting them in again.
        bytes(self._build.limits.message)
        if self._options.channels:
            self._shared = SharedConnections(self._build.limits, self._build.clock)
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
                socket = await self._open_socket(node, host, port, timeout)
        except TimeoutError as error:
            raise DialFailed(f"no connection within {timeout:g} s", address) from error
        except OSError as error:
            raise DialFailed(connection_problem(error), address) from error
        if not self.is_open:
            await socket.aclose()
            raise Closed("the transport was closed")
        return socket

    async def _open_socket(self, node: Node, host: str, port: int, timeout: float) -> Socket:
        async def connect(protocol: Callable[[], asyncio.Protocol]) -> Any:
            return await self._connect(protocol, host, port)

        if self._shared is not None and node.metadata.get(CHANNELS_KEY) == CHANNELS_VERSION:
            channel = await self._shared.open_channel(join_address(host, port), connect, timeout, _processes(node))
            if channel is not None:
                return channel
        return await self._dial_http(host, port)

    async def _dial_http(self, host: str, port: int) -> HttpSocket:
        address = join_address(host, port)
        head = b"POST / HTTP/1.1\r\nHost: %b\r\n" % address.encode()
        limits = self._build.limits

        def protocol() -> HttpSocket:
            parser = ResponseParser(limits, address)
            return HttpSocket(parser, head, limits, logger=self._build.logger)

        _, socket = await self._connect(protocol, host, port)
        self._sockets.add(socket)
        return socket

    async def _connect(self, protocol: Callable[[], _Protocol], host: str, port: int) -> tuple[Any, _Protocol]:
        loop = asyncio.get_running_loop()
        if self._client_tls is None:
            return await loop.create_connection(protocol, host, port)
        return await loop.create_connection(
            protocol,
            host,
            port,
            ssl=self._client_tls.get(),
            server_hostname=host,
            ssl_shutdown_timeout=CLOSE_TIMEOUT,
        )

    async def listen(self, address: str, accept: Accept, *, sock: _socket.socket | None = None) -> Listener:
        self.require_open()
        tls = self._context("server") if self._build.tls.enabled else None
        listener = HttpListener(accept, self._options, self._build, tls)
        self._listeners.add(listener)
        await listener.start(address, sock)
        return listener

    async def _close(self) -> None:
        closing = [listener.aclose() for listener in self._listeners] + [socket.aclose() for socket in self._sockets]
        if self._shared is not None:
            closing.append(self._shared.aclose())
        await asyncio.gather(*closing)


def _processes(node: Node) -> int:
    """How many processes serve at the node's address."""
    text = node.metadata.get("workers", "1")
    return max(1, int(text)) if text.isdecimal() and text.isascii() and len(text) < 5 else 1


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
