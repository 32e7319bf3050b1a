"""A registry that reads from a file where services run, and to which nobody can be added."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pymicro.plugins import Build
from pymicro.record import Node, ServiceRecord
from pymicro.registry import Registration, RegistrationState, Registry, Snapshot, SnapshotFeed
from static_file_plugin import StaticFileOptions


class StaticFile(Registry):
    name = "static_file"

    def __init__(self, options: StaticFileOptions, build: Build) -> None:
        self._path = Path(options.path)
        self._services: dict[str, ServiceRecord] = {}
        self._feeds: dict[str | None, SnapshotFeed] = {}

    async def _open(self) -> None:
        for name, addresses in json.loads(self._path.read_text()).items():
            nodes = tuple(Node(f"{name}-{address}", address) for address in addresses)
            self._services[name] = ServiceRecord(name, nodes=nodes)

    async def _close(self) -> None:
        for feed in self._feeds.values():
            feed.close()

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        return Listed()

    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        return [self._services[name]] if name in self._services else []

    async def list_services(self) -> Sequence[str]:
        return sorted(self._services)

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        feed = self._feeds.setdefault(name, SnapshotFeed())
        feed.publish(self._services.values() if name is None else await self.get_service(name))
        with feed.watch() as snapshots:
            yield snapshots


class Listed(Registration):
    """The file is the truth: registering changes nothing."""

    state: RegistrationState = "registered"

    async def update(self, service: ServiceRecord) -> None:
        pass

    async def aclose(self) -> None:
        self.state = "closed"
