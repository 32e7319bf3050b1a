"""The registry on NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pymicro.plugins import Build
from pymicro.record import ServiceRecord, merge
from pymicro.registry import Registration, Registry, Snapshot
from pymicro_nats import check_subject, open_link
from pymicro_registry_nats import _wire
from pymicro_registry_nats._options import NatsRegistryOptions

if TYPE_CHECKING:
    from pymicro_nats.connection import Link
    from pymicro_registry_nats._mirror import Mirror
    from pymicro_registry_nats._presence import Presence


class NatsRegistry(Registry):
    """Services answer for themselves: a question goes to all, and who runs the service answers.

    Follows go-micro `registry/nats`, so that Python and Go services see each other. NATS keeps nothing, and a process
    that is killed is gone at once. It connects when it is first used.

    Args:
        options: see `NatsRegistryOptions`; None for the defaults.
        build: addresses, TLS, clock, logger, and the time-out of operations.
    """

    name = "nats"

    def __init__(self, options: NatsRegistryOptions | None = None, build: Build | None = None) -> None:
        self._options = options or NatsRegistryOptions()
        self._build = build or Build()
        self._link: Link | None = None
        self._presence: Presence | None = None
        self._mirror: Mirror | None = None

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        self.require_open()
        assert self._presence is not None
        return await self._presence.add(service, ttl)

    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        found = await self._ask(_wire.get(name), f"looking for {name!r}")
        return merge(record for record in found if record.name == name)

    async def list_services(self) -> Sequence[str]:
        return sorted({record.name for record in await self._ask(_wire.list_all(), "listing services")})

    async def _ask(self, question: bytes, what: str) -> list[ServiceRecord]:
        self.require_open()
        from pymicro_registry_nats._query import ask

        assert self._link is not None
        async with self._link.within(self._build.timeout, what):
            session = await self._link.session()
            options = self._options
            return await ask(session, self._build.clock, options.query_topic, [question], options.query_time)

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        self.require_open()
        assert self._mirror is not None
        async with self._mirror.watch(name) as snapshots:
            yield snapshots

    async def _open(self) -> None:
        for topic in (self._options.query_topic, self._options.watch_topic):
            check_subject(topic, "topic")
        self._link = await open_link(self._options, self._build)
        from pymicro_registry_nats._mirror import Mirror
        from pymicro_registry_nats._presence import Presence

        self._presence = Presence(self._link, self._options, self._build)
        self._mirror = Mirror(self._link, self._options, self._build)

    async def _close(self) -> None:
        if self._mirror is not None:
            self._mirror.close_feeds()
            await self._mirror.aclose()
        if self._presence is not None:
            await self._presence.close_all()
        if self._link is not None:
            await self._link.aclose()
