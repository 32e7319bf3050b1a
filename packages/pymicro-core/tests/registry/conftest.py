from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from pymicro.record import Node, ServiceRecord
from pymicro.registry import Registration, Registry, Snapshot, SnapshotFeed


class ScriptedRegistry(Registry):
    """A registry whose watches yield what the test says.

    Attributes:
        begun: the names of the watches that were begun, in order.
        watched: the names of those that go on.
        failure: what beginning a watch raises; None for nothing.
        short: whether watches end after the first snapshot.
    """

    name = "scripted"

    def __init__(self) -> None:
        self.begun: list[str | None] = []
        self.watched: list[str | None] = []
        self.failure: Exception | None = None
        self.short = False
        self._feeds: dict[str | None, SnapshotFeed] = {}

    def feed(self, name: str) -> SnapshotFeed:
        return self._feeds.setdefault(name, SnapshotFeed())

    def say(self, name: str, *nodes: Node) -> None:
        self.feed(name).publish([ServiceRecord(name, nodes=nodes)] if nodes else [])

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        self.begun.append(name)
        if self.failure is not None:
            raise self.failure
        self.watched.append(name)
        try:
            with self._feeds.setdefault(name, SnapshotFeed()).watch() as snapshots:
                yield self._first(snapshots) if self.short else snapshots
        finally:
            self.watched.remove(name)

    async def _first(self, snapshots: AsyncIterator[Snapshot]) -> AsyncIterator[Snapshot]:
        yield await anext(snapshots)

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        raise NotImplementedError

    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        raise NotImplementedError

    async def list_services(self) -> Sequence[str]:
        raise NotImplementedError


@pytest.fixture
async def registry() -> AsyncIterator[ScriptedRegistry]:
    async with ScriptedRegistry() as registry:
        yield registry
