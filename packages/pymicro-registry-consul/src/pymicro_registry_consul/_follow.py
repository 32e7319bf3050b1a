"""Follows services with blocking queries: the full state first and after each change, whatever happens to the agent."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from pymicro.clock import Clock
from pymicro.errors import BackendUnavailable
from pymicro.record import ServiceRecord
from pymicro.registry.follower import Follower, SettlingFeed
from pymicro_registry_consul._client import ConsulServer
from pymicro_registry_consul._session import Session
from pymicro_registry_consul._wire import read

#: Seconds between two queries at least: a query for nobody's service returns when anything changes.
_GAP: Final = 0.05

_Records = Sequence[ServiceRecord]


class _Follower(Follower):
    """Tells a feed what `_ask` says, first and after each change.

    Each answer is all there is, so nothing is lost when one is missed. What Consul says after an interruption may lack
    services that run: an agent that lost its data, or was away longer than their TTL, hears of them again
    within moments.

    Args:
        session: whom to ask.
        clock: times the pauses.
        feed: told of everything.
        name: of its task.
    """

    def __init__(self, session: Session, clock: Clock, feed: SettlingFeed, name: str) -> None:
        super().__init__(clock, name)
        self._session, self._feed = session, feed

    @abstractmethod
    async def _ask(self, server: ConsulServer, index: int) -> tuple[int, _Records]:
        """The records and their index; with an index, once it is another one."""

    async def _follow(self) -> None:
        server = self._session.server()
        try:
            await self._follow_at(server)
        except BackendUnavailable as error:
            self._session.failed(server, error)
            raise

    async def _follow_at(self, server: ConsulServer) -> None:
        index = 0
        while True:
            asked = self._clock.monotonic()
            now, records = await self._ask(server, index)
            self._session.answered(server)
            self._works()
            if now < index:
                self._feed.lose(BackendUnavailable("it went back to an earlier state", server.address))
            index = now
            self._feed.publish(records)
            await self._clock.sleep(max(0.0, asked + self._gap() - self._clock.monotonic()))

    def _gap(self) -> float:
        return _GAP

    def _failed(self, error: Exception) -> None:
        self._feed.lose(error)


class ServiceFollower(_Follower):
    """Follows one service.

    Args:
        session, clock, feed: see `_Follower`.
        service: its name.
    """

    def __init__(self, session: Session, clock: Clock, feed: SettlingFeed, service: str) -> None:
        super().__init__(session, clock, feed, f"consul watch {service}")
        self._service = service

    async def _ask(self, server: ConsulServer, index: int) -> tuple[int, _Records]:
        now, entries = await server.instances(self._service, index)
        return now, read(entries)


class MeshFollower(_Follower):
    """Follows all services, which Consul has no query for: it waits until services or checks change, and asks all.

    Args:
        session, clock, feed: see `_Follower`.
    """

    def __init__(self, session: Session, clock: Clock, feed: SettlingFeed) -> None:
        super().__init__(session, clock, feed, "consul watch")
        self._services = self._checks = 0
        self._took = 0.0

    def _gap(self) -> float:
        return _GAP + self._took  # half of its time at most

    async def _ask(self, server: ConsulServer, index: int) -> tuple[int, _Records]:
        if index:
            await _first(server.names(self._services), server.checks(self._checks))
        begun = self._clock.monotonic()
        self._checks = await server.checks()
        self._services, names = await server.names()
        records = [record for name in names for record in await _records(server, name)]
        self._took = self._clock.monotonic() - begun
        return max(self._services, self._checks), records


async def _records(server: ConsulServer, name: str) -> _Records:
    return read((await server.instances(name))[1])


async def _first(*queries: Coroutine[Any, Any, Any]) -> None:
    """Wait for one of the queries, and raise what one raised. All are ended."""
    tasks = [asyncio.get_running_loop().create_task(query, name="consul query") for query in queries]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if errors:
        raise errors[0]
