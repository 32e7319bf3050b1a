"""The in-memory registry: services of one process, with leases, watches and outages as a real one has them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from pymicro.clock import Clock, TimerHandle
from pymicro.errors import BackendUnavailable, Closed, ConfigurationError
from pymicro.plugins import Build, NoOptions
from pymicro.record import ServiceRecord, merge
from pymicro.registry._contract import Registration, RegistrationState, Registry, Snapshot
from pymicro.registry._watch import SnapshotFeed
from pymicro.registry.keeper import check_update

# Records are kept as bytes, so that nobody shares a dictionary with the catalog or with another reader.
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(ServiceRecord).decode

#: Seconds by which a timer may fire early through rounding.
_SLACK: Final = 1e-6


class _Lease(msgspec.Struct):
    record: bytes
    expires: float


class MemoryCatalog:
    """What memory registries share: the server, as it were. Registries of one catalog share one clock, too.

    A test can take it away: see `available` and `forget`, and `MemoryRegistry.connected` for one registry alone.
    """

    def __init__(self) -> None:
        self._services: dict[str, dict[object, _Lease]] = {}
        self._registries: list[MemoryRegistry] = []
        self._available = True

    @property
    def available(self) -> bool:
        """Whether it answers; True at first. False is an outage for every registry.

        Registrations become pending, watches stale, and lookups raise `BackendUnavailable`. Leases run on. When it is
        True again, everybody registers again before anybody looks.
        """
        return self._available

    @available.setter
    def available(self, available: bool) -> None:
        self._available = available
        self._reconnect(self._registries)

    def forget(self) -> None:
        """Lose all registrations, as a restart without a disk does. Registries register again at their next renewal."""
        names, self._services = list(self._services), {}
        self._changed(*names)

    def _reconnect(self, registries: Iterable[MemoryRegistry]) -> None:
        for registry in list(registries):
            registry._renew()
        for registry in list(registries):
            registry._refresh()

    def _changed(self, *names: str) -> None:
        for registry in list(self._registries):
            for name in (*names, None):
                registry._refresh_one(name)

    def _put(self, owner: object, name: str, lease: _Lease) -> None:
        leases = self._services.setdefault(name, {})
        before = leases.get(owner)
        leases[owner] = lease
        for registry in self._registries:
            registry._look_at(lease.expires)
        if before is None or before.record != lease.record:
            self._changed(name)

    def _remove(self, owner: object, name: str) -> None:
        leases = self._services.get(name, {})
        if leases.pop(owner, None) is not None:
            if not leases:
                del self._services[name]
            self._changed(name)

    def _expire(self, now: float) -> None:
        """Forget the leases that nobody renewed."""
        expired = [
            (owner, name)
            for name, leases in self._services.items()
            for owner, lease in leases.items()
            if lease.expires <= now + _SLACK
        ]
        for owner, name in expired:
            self._remove(owner, name)

    def _next_expiry(self) -> float:
        return min((lease.expires for leases in self._services.values() for lease in leases.values()), default=math.inf)

    def _records(self, name: str | None) -> tuple[ServiceRecord, ...]:
        wanted = self._services.values() if name is None else [self._services.get(name, {})]
        return merge(_decode(lease.record) for leases in wanted for lease in leases.values())


class MemoryRegistration(Registration):
    """A lease that its registry renews three times within the TTL."""

    def __init__(self, registry: MemoryRegistry, service: ServiceRecord, ttl: float) -> None:
        self._registry = registry
        self._name = service.name
        self._record = _encode(service)
        self._ttl = ttl
        self._timer: TimerHandle | None = None
        self._closed = False

    @property
    def state(self) -> RegistrationState:
        if self._closed:
            return "closed"
        return "registered" if self.error is None else "pending"

    async def update(self, service: ServiceRecord) -> None:
        if self._closed:
            raise Closed(f"the registration of {self._name!r} was closed")
        check_update(_decode(self._record), service)
        self._record = _encode(service)
        self._renew()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed, self.error = True, None
        if self._timer is not None:
            self._timer.cancel()
        self._registry._released(self)

    def _renew(self) -> None:
        """Tell the catalog that this service is still there, or note why it cannot be told."""
        clock = self._registry._clock
        if self._timer is not None:
            self._timer.cancel()
        if self._ttl > 0:
            self._timer = clock.call_later(self._ttl / 3, self._renew)
        self.error = self._registry._fault()
        if self.error is None:
            expires = clock.monotonic() + self._ttl if self._ttl > 0 else math.inf
            self._registry._catalog._put(self, self._name, _Lease(self._record, expires))


class MemoryRegistry(Registry):
    """Services of one process. Records are copied in and out, leases end by the clock, watches are conflated.

    Args:
        options: none.
        build: the clock.
        catalog: what to share with other registries; None for a catalog of its own.
    """

    name = "memory"

    def __init__(
        self, options: NoOptions | None = None, build: Build | None = None, *, catalog: MemoryCatalog | None = None
    ) -> None:
        self._clock: Clock = (build or Build()).clock
        self._catalog = catalog or MemoryCatalog()
        self._connected = True
        self._registrations: dict[MemoryRegistration, None] = {}
        self._feeds: dict[str | None, SnapshotFeed] = {}
        self._timer: TimerHandle | None = None
        self._looks_at = math.inf

    @property
    def connected(self) -> bool:
        """Whether this registry reaches its catalog; True at first.

        False cuts it off alone, as a network does: its leases run out, its watches are stale. A registry that is
        closed in this state deregisters nothing, as a process that crashed.
        """
        return self._connected

    @connected.setter
    def connected(self, connected: bool) -> None:
        self._connected = connected
        self._catalog._reconnect([self])

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        self.require_open()
        if not service.nodes:
            raise ConfigurationError(f"{service.name!r} has no nodes: a record that is registered has at least one")
        registration = MemoryRegistration(self, service, ttl)
        self._registrations[registration] = None
        registration._renew()
        return registration

    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        return self._read(name)

    async def list_services(self) -> Sequence[str]:
        return sorted({record.name for record in self._read(None)})

    def _read(self, name: str | None) -> tuple[ServiceRecord, ...]:
        self.require_open()
        fault = self._fault()
        if fault is not None:
            raise fault
        self._catalog._expire(self._clock.monotonic())
        return self._catalog._records(name)

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        self.require_open()
        feed = self._feeds.setdefault(name, SnapshotFeed())
        self._refresh_one(name)
        self._look_at(self._catalog._next_expiry())
        try:
            with feed.watch() as snapshots:
                yield snapshots
        finally:
            if not feed.watched and self._feeds.get(name) is feed:
                del self._feeds[name]

    async def _open(self) -> None:
        self._catalog._registries.append(self)

    async def _close(self) -> None:
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            feed.close()
        for registration in list(self._registrations):
            await registration.aclose()
        self._catalog._registries.remove(self)
        if self._timer is not None:
            self._timer.cancel()

    def _fault(self) -> BackendUnavailable | None:
        if not self._catalog.available:
            return BackendUnavailable("the memory catalog is not available")
        return None if self._connected else BackendUnavailable("this registry is cut off its memory catalog")

    def _renew(self) -> None:
        for registration in list(self._registrations):
            registration._renew()

    def _released(self, registration: MemoryRegistration) -> None:
        del self._registrations[registration]
        if self._fault() is None:
            self._catalog._remove(registration, registration._name)

    def _refresh(self) -> None:
        for name in list(self._feeds):
            self._refresh_one(name)

    def _refresh_one(self, name: str | None) -> None:
        """Tell the watchers of `name` what holds now."""
        feed = self._feeds.get(name)
        if feed is None:
            return
        fault = self._fault()
        if fault is not None:
            feed.fail(fault)
        else:
            feed.publish(self._catalog._records(name))

    def _look_at(self, expires: float) -> None:
        """Look at the leases when the first may end, while somebody watches: its owner and its loop may be gone."""
        if expires >= self._looks_at or not self._feeds:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = expires
        self._timer = self._clock.call_later(max(0.0, expires - self._clock.monotonic()), self._look)

    def _look(self) -> None:
        self._looks_at = math.inf
        self._catalog._expire(self._clock.monotonic())
        self._look_at(self._catalog._next_expiry())
