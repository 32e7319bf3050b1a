"""The registry on Consul."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from pymicro.plugins import Build
from pymicro.record import ServiceRecord
from pymicro.registry import Registration, Registry, Snapshot
from pymicro.registry.follower import Follower, SettlingFeed, SharedWatches
from pymicro_registry_consul._follow import MeshFollower, ServiceFollower
from pymicro_registry_consul._keeper import ConsulKeeper, ConsulRegistration
from pymicro_registry_consul._options import ConsulOptions
from pymicro_registry_consul._session import Session
from pymicro_registry_consul._wire import can_be_asked_for, read

#: Seconds for which nodes are kept that Consul may have lost. An agent that comes up takes nothing while it waits for a
#: leader, up to seven seconds, and what it was told before that it tells the leader up to two seconds after.
SETTLE: Final = 10.0


class ConsulRegistry(Registry):
    """Services of Consul agents, in the tags and checks of go-micro `registry/consul/consul.go`.

    A registration is a service of the agent for each node, with a check that becomes critical after the TTL. One task
    passes the checks of this process three times within their TTL, and registers anew what the agent does not have any
    more. Instances with a critical check are hidden.

    Opening does nothing: the connection is made by the first call.

    Args:
        options: see `ConsulOptions`; None for the defaults.
        build: addresses, TLS, time-out, clock and logger are used; None for the defaults, which is
            `127.0.0.1:8500` without TLS.

    Raises:
        ConfigurationError: an address is no address, or the token no token.
    """

    name = "consul"

    def __init__(self, options: ConsulOptions | None = None, build: Build | None = None) -> None:
        self._build, options = build or Build(), options or ConsulOptions()
        self._session = Session(options, self._build)
        self._keeper = ConsulKeeper(self._session, self._build, options.heartbeat)
        self._watches = SharedWatches(self._build.clock, self._follow, SETTLE)

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        """Register `service` with the agent and keep it there. See `Registry.register`."""
        self.require_open()
        return await self._keeper.register(ConsulRegistration(service, ttl))

    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        """Ask Consul. See `Registry.get_service`.

        Raises:
            BackendRefused: the token; `list_services` raises it too.
        """
        self.require_open()
        if not can_be_asked_for(name):
            return ()  # nor can it be registered
        return read((await self._session.call(lambda server: server.instances(name)))[1])

    async def list_services(self) -> Sequence[str]:
        """Ask Consul. See `Registry.list_services`. Services whose nodes are all critical are among them."""
        self.require_open()
        return (await self._session.call(lambda server: server.names()))[1]

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        """Follow a service, or all. See `Registry.watch`."""
        self.require_open()
        async with self._watches.watch(name) as snapshots:
            yield snapshots

    def _follow(self, name: str | None, feed: SettlingFeed) -> Follower:
        if name is None:
            return MeshFollower(self._session, self._build.clock, feed)
        return ServiceFollower(self._session, self._build.clock, feed, name)

    async def _open(self) -> None:
        self._session.open()

    async def _close(self) -> None:
        await self._watches.aclose()
        await self._keeper.aclose()
        await self._session.aclose()
