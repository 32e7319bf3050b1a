"""The publishing side: posts messages to subscribers."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from urllib.parse import urlencode

import aiohttp

from pymicro.errors import (
    Closed,
    DialFailed,
    Disconnected,
    ProtocolViolation,
    TooLarge,
    from_wire,
)
from pymicro.plugins import TLS, Build
from pymicro.plugins.toolkit import TLSContext, connection_problem
from pymicro.record import Node
from pymicro_broker_http._faults import Full, Gone, Silent
from pymicro_broker_http._wire import IF_IDLE, UNSUBSCRIBED

#: Connections at a time, to all subscribers and to one address. A message waits for one within its time-out.
_CONNECTIONS: Final = 512
_PER_ADDRESS: Final = 16

#: Bytes of an error's text that are read.
_MAX_ERROR: Final = 4096

_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "pymicro"}


class Client:
    """Posts to subscribers over kept connections.

    Args:
        build: TLS, clock and logger.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._secure = build.tls.enabled
        #: Made when it is first needed, by a service that has no TLS of its own: it reads the system's authorities.
        self._verifying = self._context(build.tls) if self._secure else None
        self._connector = aiohttp.TCPConnector(limit=_CONNECTIONS, limit_per_host=_PER_ADDRESS)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            skip_auto_headers=("Accept", "Accept-Encoding"),
            auto_decompress=False,
        )

    def _context(self, tls: TLS) -> TLSContext:
        return TLSContext(tls, "client", clock=self._build.clock, logger=self._build.logger)

    async def aclose(self) -> None:
        """Close all connections, without waiting for anybody."""
        await self._connector.close(abort_ssl=True)
        await self._session.close()

    async def post(
        self, node: Node, body: bytes, timeout: float, *, connect_timeout: float, if_idle: bool = False
    ) -> None:
        """Post a message to the subscription `node`; returns when the subscriber has it.

        Args:
            node: whom to.
            body: the message.
            timeout: seconds for the whole of it.
            connect_timeout: seconds of them for a connection to come about.
            if_idle: whether it shall be refused when it would have to wait there.

        Raises:
            DialFailed: no connection came about.
            Disconnected, ProtocolViolation: something went wrong on it.
            Gone, Full, TooLarge: the subscriber does not take it.
            Silent: no answer in time.
            Closed: the client was closed.
        """
        try:
            async with asyncio.timeout(timeout):
                try:
                    await self._post(node, body, connect_timeout, if_idle)
                except Disconnected:
                    # Most likely a kept connection that the subscriber closed meanwhile.
                    await self._post(node, body, connect_timeout, if_idle)
        except TimeoutError as error:
            raise Silent(f"no answer within {timeout:.3g} s", node.address) from error

    async def _post(self, node: Node, body: bytes, connect_timeout: float, if_idle: bool) -> None:
        url, context = self._target(node)
        headers = {IF_IDLE: "true"} if if_idle else None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=timeout, ssl=context, allow_redirects=False
            ) as response:
                if response.status != 200:
                    text = (await response.content.read(_MAX_ERROR)).decode("utf-8", "replace")
                    raise _refusal(response.status, text, node.address)
                if UNSUBSCRIBED in response.headers:
                    raise Gone("it is not subscribed any more", node.address)
        except aiohttp.ConnectionTimeoutError as error:
            raise DialFailed(f"no connection within {connect_timeout:.3g} s", node.address) from error
        except aiohttp.ClientConnectorError as error:
            raise DialFailed(connection_problem(error.os_error), node.address) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise Disconnected(f"the connection ended: {error}", node.address) from error
        except (aiohttp.InvalidURL, ValueError) as error:
            raise DialFailed(f"not an address: {error}", node.address) from error
        except RuntimeError as error:
            if self._session.closed:
                raise Closed("the broker was closed") from error
            raise
        except aiohttp.ClientError as error:
            raise ProtocolViolation(f"no proper answer: {error}", node.address) from error

    def _target(self, node: Node) -> tuple[str, ssl.SSLContext | bool]:
        secure = node.metadata.get("secure") == "true"
        query = urlencode({"id": node.id})
        if not secure:
            if self._secure:
                raise DialFailed("it does not use TLS, and this service does: configure both alike", node.address)
            return f"http://{node.address}/?{query}", True
        if self._verifying is None:
            self._verifying = self._context(TLS(secure=True))
        return f"https://{node.address}/?{query}", self._verifying.get()


def _refusal(status: int, text: str, address: str) -> Exception:
    error = from_wire(text)
    if status == 413:
        return TooLarge(f"{address}: {error.detail}")
    if status == 503:
        return Full(error.detail, address)
    return ProtocolViolation(f"status {status}: {error.detail[:200]}", address)
