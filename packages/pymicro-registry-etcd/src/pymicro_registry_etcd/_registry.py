"""The registry on etcd."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext
from pymicro.record import ServiceRecord
from pymicro.registry import Registration, Registry, Snapshot
from pymicro.registry.follower import SettlingFeed, SharedWatches
from pymicro.registry.wire import read_record
from pymicro_registry_etcd._follow import ServiceFollower, merged
from pymicro_registry_etcd._keeper import EtcdKeeper, EtcdRegistration
from pymicro_registry_etcd._options import EtcdOptions
from pymicro_registry_etcd._session import Session
from pymicro_registry_etcd._wire import prefix


class EtcdRegistry(Registry):
    """Services in etcd, in the keys and values of go-micro `registry/etcd/etcd.go`.

    A registration is a key for each node on a lease of its TTL, rounded up to whole seconds (etcd makes it 2 at
    least). One task renews the leases of this process three times within their TTL, puts again what was deleted, and
    registers anew when the lease or the server's data is gone. Lookups and the beginning of each watch are what a
    majority of the cluster says.

    Opening does nothing: the connection is made by the first call.

    Args:
        options: see `EtcdOptions`; None for the defaults.
        build: addresses, TLS, time-out, clock and logger are used; None for the defaults, which is
            `127.0.0.1:2379` without TLS.

    Raises:
        ConfigurationError: an address is no address, or there is a password without a user name.
    """

    name = "etcd"

    def __init__(self, options: EtcdOptions | None = None, build: Build | None = None) -> None:
        self._build = build or Build()
        self._session = Session(options or EtcdOptions(), self._build)
        self._keeper = EtcdKeeper(self._session, self._build)
        self._watches = SharedWatches(self._build.clock, self._follow)

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        """Put `service` under its keys and keep it there. See `Registry.register`."""
        self.require_open()
        return await self._keeper.register(EtcdRegistration(service, ttl))

    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        """Ask etcd. See `Registry.get_service`.

        Raises:
            BackendRefused: credentials or permissions; `list_services` raises it too.
        """
        return merged(await self._read(name), name)

    async def list_services(self) -> Sequence[str]:
        """Ask etcd. See `Registry.list_services`."""
        return sorted({record.name for record in merged(await self._read(None), None)})

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        """Follow the keys of a service, or all keys. See `Registry.watch`."""
        self.require_open()
        async with self._watches.watch(name) as snapshots:
            yield snapshots

    def _follow(self, name: str | None, feed: SettlingFeed) -> ServiceFollower:
        return ServiceFollower(self._session, self._build.clock, feed, name)

    async def _read(self, name: str | None) -> Iterable[ServiceRecord]:
        self.require_open()
        state = await self._session.call(lambda server: server.read(*prefix(name)))
        return (record for _, entry in sorted(state.entries.items()) if (record := read_record(entry.value)))

    async def _open(self) -> None:
        if self._build.tls.enabled:
            TLSContext(self._build.tls, "client")  # says what is wrong with the files; gRPC would not

    async def _close(self) -> None:
        await self._watches.aclose()
        await self._keeper.aclose()
        await self._session.aclose()
