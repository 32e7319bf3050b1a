"""The HTTP that py-consul's calls go over.

Its own, `consul.aio`, is not used: it gives a blocking query no time-out of its own, trusts the system's authorities
beside the one that is given, reads answers of any size, and passes arguments to aiohttp that are to go. The token of
the environment (`CONSUL_HTTP_TOKEN`) would win over the option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import aiohttp
import yarl
from consul.base import Consul, HTTPClient, Response
from consul.exceptions import ACLPermissionDenied

from pymicro.plugins.toolkit import TLSContext

#: Bytes that one answer may have: records have a few kB.
MAX_ANSWER: Final = 64 * 1024 * 1024

_FILTERED: Final = "X-Consul-Results-Filtered-By-ACLs"
_EMPTY: Final = frozenset({"[]", "{}", "null"})

_Params = Sequence[tuple[str, Any]] | None


class AnswerTooLargeError(Exception):
    """An answer has more than `MAX_ANSWER` bytes."""


class Http(HTTPClient):  # type: ignore[misc]  # py-consul has no types
    """Asks one address. Time-outs, but for that of connecting, are those of the callers.

    Args:
        host, port: of the address.
        tls: None for plain HTTP.
        token: of the access control; empty for none.
        connect_timeout: seconds.
    """

    def __init__(self, host: str, port: int, tls: TLSContext | None, token: str, connect_timeout: float) -> None:
        super().__init__(f"[{host}]" if ":" in host else host, port, "https" if tls else "http")
        self._tls = tls
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the callers count; blocking queries must not hold up others
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
            headers={"X-Consul-Token": token} if token else None,
        )

    async def get(
        self, callback: Callable[[Response], Any], path: str, params: _Params = None, headers: Any = None, **_: Any
    ) -> Any:
        """What `callback` makes of the answer."""
        return callback(await self._ask("GET", path, params))

    async def put(
        self,
        callback: Callable[[Response], Any],
        path: str,
        params: _Params = None,
        data: str | bytes = "",
        headers: Any = None,
        **_: Any,
    ) -> Any:
        """What `callback` makes of the answer."""
        return callback(await self._ask("PUT", path, params, data))

    async def _ask(self, method: str, path: str, params: _Params, data: str | bytes | None = None) -> Response:
        url = yarl.URL(self.uri(path, params), encoded=True)  # names may hold what yarl would unquote
        async with self._session.request(
            method, url, data=data, ssl=self._tls.get() if self._tls else True, allow_redirects=False
        ) as answer:
            body = await _body(answer)
            status = answer.status if answer.status < 300 or answer.status >= 400 else 400
            _check_filter(answer.headers, body)
            return Response(status, answer.headers, body)

    def post(self, *_: Any, **__: Any) -> Any:
        """Not needed."""
        raise NotImplementedError

    def delete(self, *_: Any, **__: Any) -> Any:
        """Not needed."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return bool(self._session.closed)

    async def close(self) -> None:
        """End all connections. What waits for an answer fails."""
        await self._session.close()


class Api(Consul):  # type: ignore[misc]  # py-consul has no types
    """py-consul's calls, over `http`."""

    def __init__(self, http: Http) -> None:
        self._given = http
        super().__init__(http.host, http.port, scheme=http.scheme, verify=True)
        self.token = None  # of the environment; ours is a header of the session

    def http_connect(self, *_: Any, **__: Any) -> Http:
        """Called by the base class."""
        return self._given


async def _body(answer: aiohttp.ClientResponse) -> str:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise AnswerTooLargeError(f"the answer has more than {MAX_ANSWER} bytes")
    return body.decode(errors="replace")


def _check_filter(headers: Mapping[str, str], body: str) -> None:
    """An empty answer from which something was left out says nothing."""
    if headers.get(_FILTERED) == "true" and body.strip() in _EMPTY:
        raise ACLPermissionDenied("the token may not read any of it")
