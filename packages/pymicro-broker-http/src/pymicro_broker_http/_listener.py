"""The subscribing side: takes messages over HTTP."""

from __future__ import annotations

import asyncio
import logging
import socket as _socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pymicro.broker import envelope
from pymicro.errors import BadRequest, Error, Timeout, TooLarge, Unavailable, to_wire
from pymicro.message import Message
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, bind, join_address, log, split_address
from pymicro_broker_http import _wire
from pymicro_broker_http._consumer import Verdict
from pymicro_broker_http._options import HttpBrokerOptions

#: Given the id of a subscription, a message, its key, and whether to take it only if it need not wait.
Take = Callable[[str, Message, str | None, bool], Awaitable[Verdict]]

#: Seconds to wait when a connection cannot be accepted.
_ACCEPT_PAUSE: Final = 1.0

#: Seconds for the answers that are under way when it closes, and for the end of a TLS connection.
_CLOSE_TIMEOUT: Final = 1.0

#: Seconds for which the rest of a body that was refused is read, so that its sender sees the answer.
_LINGER: Final = 2.0

_SERVER: Final = {"Server": "pymicro"}
_PLAIN: Final = {**_SERVER, "Content-Type": "text/plain; charset=utf-8"}


class _Connection(web.RequestHandler):
    """One connection, which must say something soon: aiohttp's own time-outs begin with the first request."""

    __slots__ = ("_lost", "_patience", "_timer")

    def __init__(self, server: web.Server, patience: float, lost: Callable[[], None], **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._patience = patience
        self._lost = lost
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._patience > 0:
            abort = cast(asyncio.Transport, transport).abort
            self._timer = asyncio.get_running_loop().call_later(self._patience, abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.spoke()
        self._lost()
        super().connection_lost(exc)

    def spoke(self) -> None:
        """A request began."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What peers send is no error of this process."""
        theirs = isinstance(kw.get("exc_info"), HttpProcessingError)
        self.logger.log(logging.DEBUG if theirs else logging.ERROR, *args, **kw)


class Listener:
    """Accepts connections and hands messages to `take`.

    Args:
        take: called for each message.
        options: bounds.
        build: limits, TLS, clock and logger.

    Attributes:
        address: where it listens, once it was started.
        secure: whether it speaks TLS.

    Raises:
        ConfigurationError: TLS is on, and there is no certificate.
    """

    def __init__(self, take: Take, options: HttpBrokerOptions, build: Build) -> None:
        self.address = ""
        self.secure = build.tls.enabled
        self._take = take
        self._options = options
        self._build = build
        self._tls: TLSContext | None = None
        if self.secure:
            self._tls = TLSContext(build.tls, "server", clock=build.clock, logger=build.logger)
        self._longest = envelope.longest(build.limits)
        self._server = web.Server(self._serve, handler_cancellation=True)
        self._bound: _socket.socket | None = None
        self._acceptor: asyncio.Task[None] | None = None
        self._beginning: dict[asyncio.Task[None], _socket.socket] = {}
        self._connections = 0

    async def start(self, address: str) -> None:
        """Listen at `host:port`; a range of ports gives the first free one.

        Raises:
            ConfigurationError: it is not possible there.
        """
        host, ports = split_address(address)
        self._bound = sock = await bind(host, ports, flag="--broker_address")
        sock.setblocking(False)
        bound, port = sock.getsockname()[:2]
        self.address = join_address(host or bound, port)
        self._acceptor = asyncio.get_running_loop().create_task(self._accept(sock), name="http broker accept")

    async def aclose(self) -> None:
        """Stop accepting, and close what is open. Bounded in time."""
        if self._acceptor is not None:
            self._acceptor.cancel()
            await asyncio.wait([self._acceptor])
        if self._bound is not None:
            self._bound.close()
        for task in self._beginning:
            task.cancel()
        if self._beginning:
            await asyncio.wait(self._beginning)
        self._server.pre_shutdown()
        await self._server.shutdown(_CLOSE_TIMEOUT)

    # connections

    async def _accept(self, sock: _socket.socket) -> None:
        """What `create_server` does, with a TLS context for each handshake, so that new certificates are used."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(sock)
            except OSError as error:  # most likely out of file descriptors: asyncio's own servers wait as long
                log(self._build.logger, logging.ERROR, "cannot accept", error=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            if self._connections >= self._options.max_connections:
                connection.close()
                continue
            self._connections += 1
            task = loop.create_task(self._begin(connection), name="http broker connection")
            self._beginning[task] = connection
            task.add_done_callback(self._begun)

    async def _begin(self, connection: _socket.socket) -> None:
        tls: dict[str, Any] = {}
        if self._tls is not None:
            patience = self._options.request_timeout or None
            tls = {
                "ssl": self._tls.get(),
                "ssl_handshake_timeout": patience,
                "ssl_shutdown_timeout": _CLOSE_TIMEOUT,
            }
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection, **tls)
        except OSError as error:
            log(self._build.logger, logging.DEBUG, "connection failed", error=str(error))
            connection.close()
            self._lost()

    def _begun(self, task: asyncio.Task[None]) -> None:
        connection = self._beginning.pop(task)
        if task.cancelled():
            connection.close()

    def _lost(self) -> None:
        self._connections -= 1

    def _protocol(self) -> _Connection:
        return _Connection(
            self._server,
            self._options.request_timeout,
            self._lost,
            keepalive_timeout=self._options.idle_timeout,
            lingering_time=_LINGER,
            auto_decompress=False,
            access_log=None,
            logger=self._build.logger,
        )

    # requests

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        if isinstance(request.protocol, _Connection):
            request.protocol.spoke()
        if request.method != "POST":
            headers = {"Allow": "POST", "X-Content-Type-Options": "nosniff"}
            return _refused(405, _wire.method_not_allowed(), end="\n", headers=headers)
        try:
            async with asyncio.timeout(self._options.request_timeout or None):
                data = await self._read(request)
            message, key = _wire.read(data)
            self._check(message)
        except TimeoutError:
            return _refused(408, Timeout("the body did not arrive in time", _wire.ERROR_ID), close=True)
        except web.RequestPayloadError as error:
            return _refused(400, BadRequest(f"the body is broken: {error}", _wire.ERROR_ID), close=True)
        except Error as error:
            return _refused(error.code, error, close=error.code == TooLarge.code)
        verdict = await self._take(request.query.get("id", ""), message, key, _wire.IF_IDLE in request.headers)
        return _answer(verdict)

    async def _read(self, request: web.BaseRequest) -> bytes:
        self._bounded(request.content_length or 0, self._longest, "request")
        parts: list[bytes] = []
        size = 0
        async for part in request.content.iter_any():
            size += len(part)
            self._bounded(size, self._longest, "request")
            parts.append(part)
        return b"".join(parts)

    def _check(self, message: Message) -> None:
        limits, body = self._build.limits, len(message.body)
        self._bounded(body, limits.message, "message")
        self._bounded(message.size - body, limits.headers, "headers")

    def _bounded(self, size: int, limit: int, what: str) -> None:
        if size > limit:
            raise TooLarge(f"{what} of {size} bytes, over the limit of {limit}", _wire.ERROR_ID)


def _answer(verdict: Verdict) -> web.Response:
    if verdict == "full":
        return _refused(503, Unavailable("the subscription has no room", _wire.ERROR_ID))
    # Go Micro's answer is the same whether somebody is subscribed or not; pymicro's publishers are told.
    return web.Response(headers=_SERVER if verdict == "taken" else {**_SERVER, _wire.UNSUBSCRIBED: "true"})


def _refused(
    status: int, error: Error, *, end: str = "", headers: dict[str, str] | None = None, close: bool = False
) -> web.Response:
    body = f"{to_wire(error)}{end}".encode()
    response = web.Response(status=status, body=body, headers={**_PLAIN, **(headers or {})})
    if close:
        response.force_close()
    return response
