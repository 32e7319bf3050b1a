"""One Consul agent: the few calls that a registry needs, and the one mapping of what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from consul.exceptions import ConsulException

from pymicro.errors import BackendRefused, BackendUnavailable
from pymicro.plugins.toolkit import TLSContext, connection_problem, join_address
from pymicro_registry_consul._http import AnswerTooLargeError, Api, Http
from pymicro_registry_consul._wire import Health, Instance

T = TypeVar("T")

#: Requests at the same time, besides blocking queries: an agent takes 200 connections of one host.
AT_ONCE: Final = 64

#: Seconds for which the agent holds a blocking query, and by what part of it it may be late.
WAIT: Final = 50.0
_LATE: Final = 1 / 16

_MANY: Final = "429"
_NO_CHECK: Final = "associated TTL"  # Consul before 1.12 says so, with status 500


class Overloaded(BackendUnavailable):
    """The agent answers, and cannot say: it has no leader, or too much to do."""


class ConsulServer:
    """One agent. Every method is bounded in time and raises `BackendUnavailable` or `BackendRefused`.

    Args:
        host, port: where it listens.
        tls: None for plain HTTP.
        token: of the access control; empty for none.
        timeout, connect_timeout: seconds for one request, and for making the connection.

    Attributes:
        address: `host:port`.
        watches: how many blocking queries wait.
    """

    def __init__(
        self, host: str, port: int, tls: TLSContext | None, *, token: str, timeout: float, connect_timeout: float
    ) -> None:
        self.address = join_address(host, port)
        self.watches = 0
        self._timeout, self._connect_timeout = timeout, connect_timeout
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._http = Http(host, port, tls, token, connect_timeout)
        self._api = Api(self._http)

    async def probe(self) -> None:
        """Ask something cheap, within `connect_timeout`."""
        async with self._asking(self._connect_timeout):
            await self._api.status.leader()

    async def register(self, body: Mapping[str, Any]) -> None:
        """Register a service of this agent, or replace it. Its check keeps its status if it was there."""
        async with self._request():
            await self._api.agent.service.register(**body)

    async def is_registered(self, id: str) -> bool:
        """Whether the agent has this service."""
        return await self.registered(id) is not None

    async def registered(self, id: str) -> Instance | None:
        """What the agent has under this id."""
        async with self._request():
            found = await self._api.agent.service_definition(id)
            return None if found is None else _convert(found, Instance)

    async def deregister(self, id: str) -> None:
        """Take a service from this agent. One that is not there is no error."""
        async with self._request():
            await self._api.agent.service.deregister(id)

    async def renew(self, id: str) -> bool:
        """Let the TTL of a service run from its beginning again; whether it has one."""
        async with self._request():
            try:
                return bool(await self._api.agent.check.ttl_pass(f"service:{id}"))
            except ConsulException as error:
                if _NO_CHECK in str(error):
                    return False
                raise

    async def instances(self, name: str, index: int = 0) -> tuple[int, list[Health]]:
        """All instances of a service, and their index. With an index, once it is another one."""
        async with self._blocking() if index else self._request():
            found = await self._api.health.service(name, **_when(index))
            return _index(found[0]), _convert(found[1], list[Health])

    async def names(self, index: int = 0) -> tuple[int, list[str]]:
        """The names of all services, and their index. With an index, once it is another one."""
        async with self._blocking() if index else self._request():
            found = await self._api.catalog.services(**_when(index))
            return _index(found[0]), sorted(_convert(found[1], dict[str, Any]))

    async def checks(self, index: int = 0) -> int:
        """The index of all checks. With an index, once it is another one."""
        async with self._blocking() if index else self._request():
            return _index((await self._api.health.state("any", **_when(index)))[0])

    @asynccontextmanager
    async def _blocking(self) -> AsyncIterator[None]:
        self.watches += 1
        try:
            async with self._asking(WAIT * (1 + _LATE) + self._timeout):
                yield
        finally:
            self.watches -= 1

    @asynccontextmanager
    async def _request(self) -> AsyncIterator[None]:
        async with self._asking(self._timeout), self._slots:
            yield

    @asynccontextmanager
    async def _asking(self, timeout: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout):
                yield
        except (ConsulException, aiohttp.ClientError, TimeoutError, OSError, AnswerTooLargeError) as error:
            raise self._meaning(error) from error
        except RuntimeError as error:
            if not self._http.closed:
                raise
            raise BackendUnavailable("the connection was closed", self.address) from error

    def _meaning(self, error: Exception) -> Exception:
        """What an error means to pymicro."""
        if isinstance(error, ConsulException):
            return self._answer(error)
        if isinstance(error, AnswerTooLargeError):
            return BackendRefused(str(error), self.address)
        if isinstance(error, TimeoutError):
            return BackendUnavailable("no answer in time", self.address)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return BackendUnavailable(f"the TLS certificate is not trusted: {error.certificate_error}", self.address)
        if isinstance(error, aiohttp.ClientConnectorError):
            return BackendUnavailable(connection_problem(error.os_error), self.address)
        return BackendUnavailable(f"the connection ended: {error!r}", self.address)

    def _answer(self, error: ConsulException) -> Exception:
        text = " ".join(str(error).split()) or type(error).__name__
        # py-consul has classes for 4xx; its base class is left for 5xx, and for what is no answer of Consul's.
        if type(error) is ConsulException or text.startswith(_MANY):
            return Overloaded(text, self.address)
        return BackendRefused(text, self.address)

    async def aclose(self) -> None:
        """End all connections. What waits fails as with a lost connection."""
        await self._http.close()


def _when(index: int) -> dict[str, Any]:
    return {"index": index, "wait": f"{round(WAIT * 1000)}ms"} if index else {}


def _index(text: str) -> int:
    return max(1, int(text)) if text.isdecimal() and len(text) < 20 else 1  # zero would not block


def _convert(found: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise ConsulException(f"the answer is none of Consul's: {error}") from error
