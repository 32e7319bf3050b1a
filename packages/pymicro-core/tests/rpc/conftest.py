"""A mesh in memory: services that share one catalog, one network and one set of topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pymicro import Service
from pymicro.broker import MemoryBroker, MemoryTopics
from pymicro.clock import Clock, SystemClock
from pymicro.plugins import Build
from pymicro.registry import MemoryCatalog, MemoryRegistry, ServiceRecord
from pymicro.transport import MemoryNetwork, MemoryTransport


class Mesh:
    """Makes services that can find and reach each other."""

    def __init__(self) -> None:
        self.catalog = MemoryCatalog()
        self.network = MemoryNetwork()
        self.topics = MemoryTopics()

    def service(self, name: str, *handlers: object, **keywords: Any) -> Service:
        """A service wired to this mesh, which reads no environment and drains without waiting."""
        service = Service(
            name,
            environ={},
            registry=lambda build: MemoryRegistry(None, build, catalog=self.catalog),
            transport=lambda build: MemoryTransport(None, build, network=self.network),
            broker=lambda build: MemoryBroker(None, build, topics=self.topics),
            **{"drain_delay": 0.0, **keywords},
        )
        for handler in handlers:
            service.handle(handler)
        return service

    async def registered(self, name: str, clock: Clock | None = None) -> Sequence[ServiceRecord]:
        """What a service that looks now would find; the catalog's leases end by one clock."""
        async with MemoryRegistry(None, Build(clock=clock or SystemClock()), catalog=self.catalog) as registry:
            return await registry.get_service(name)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture
def service(mesh: Mesh) -> Callable[..., Service]:
    return mesh.service
