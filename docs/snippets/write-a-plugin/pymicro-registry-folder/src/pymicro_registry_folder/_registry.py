"""A registry for services of one machine: each registration is a file, whose owner writes it anew before it expires.

The files are small and local, so they are read and written in the event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import msgspec

from pymicro.errors import BackendUnavailable, Closed
from pymicro.plugins import Build
from pymicro.record import ServiceRecord, merge
from pymicro.registry import Registration, RegistrationState, Registry, Snapshot, SnapshotFeed
from pymicro.registry.keeper import check_update
from pymicro_registry_folder._options import FolderOptions


class Lease(msgspec.Struct):
    service: ServiceRecord
    expires: float  # on the wall clock, which all processes share


class FolderRegistry(Registry):
    name = "folder"

    def __init__(self, options: FolderOptions | None = None, build: Build | None = None) -> None:
        self.options = options or FolderOptions()
        self.clock = (build or Build()).clock
        self.folder = Path(self.options.path)
        self.registrations: set[FolderRegistration] = set()
        self._feeds: set[SnapshotFeed] = set()

    async def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    async def _close(self) -> None:
        for feed in list(self._feeds):
            feed.close()
        for registration in list(self.registrations):
            await registration.aclose()

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        self.require_open()
        return FolderRegistration(self, service, ttl)

    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        return [service for service in self._read() if service.name == name]

    async def list_services(self) -> Sequence[str]:
        return sorted({service.name for service in self._read()})

    def _read(self) -> Sequence[ServiceRecord]:
        self.require_open()
        now = self.clock.time()
        try:
            leases = [msgspec.json.decode(path.read_bytes(), type=Lease) for path in self.folder.glob("*.json")]
        except (OSError, msgspec.DecodeError) as error:
            raise BackendUnavailable(f"cannot read {self.folder}: {error}") from error
        return merge(lease.service for lease in leases if lease.expires > now)

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        self.require_open()
        feed = SnapshotFeed()  # conflates: a slow watcher gets the newest state
        self._feeds.add(feed)
        look = asyncio.create_task(self._look(feed, name))
        try:
            with feed.watch() as snapshots:
                yield snapshots
        finally:
            self._feeds.discard(feed)
            look.cancel()
            await asyncio.wait([look])

    async def _look(self, feed: SnapshotFeed, name: str | None) -> None:
        while self.is_open:
            try:
                feed.publish(service for service in self._read() if name in (None, service.name))
            except BackendUnavailable as error:
                feed.fail(error)
            await self.clock.sleep(self.options.refresh)


class FolderRegistration(Registration):
    def __init__(self, registry: FolderRegistry, service: ServiceRecord, ttl: float) -> None:
        self._registry = registry
        self._service = service
        self._ttl = ttl
        self._file = registry.folder / f"{uuid4().hex}.json"
        self._closed = False
        registry.registrations.add(self)
        self._renew()
        self.renewal = asyncio.create_task(self._renew_for_ever())

    @property
    def state(self) -> RegistrationState:
        if self._closed:
            return "closed"
        return "registered" if self.error is None else "pending"

    def _renew(self) -> None:
        expires = self._registry.clock.time() + self._ttl if self._ttl else float(2**52)
        draft = self._file.with_suffix(".draft")
        try:
            draft.write_bytes(msgspec.json.encode(Lease(self._service, expires)))
            draft.replace(self._file)  # readers see the old file or the new one
            self.error = None
        except OSError as error:
            self.error = BackendUnavailable(f"cannot write to {self._registry.folder}: {error}")

    async def _renew_for_ever(self) -> None:
        while True:
            await self._registry.clock.sleep(self._ttl / 3 if self._ttl and not self.error else 1.0)
            self._renew()

    async def update(self, service: ServiceRecord) -> None:
        if self._closed:
            raise Closed("the registration was closed")
        check_update(self._service, service)
        self._service = service
        self._renew()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed, self.error = True, None
        self._registry.registrations.discard(self)
        self.renewal.cancel()
        self._file.unlink(missing_ok=True)
        await asyncio.wait([self.renewal])
