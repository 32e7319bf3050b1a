"""The registry cases on the in-memory registry."""

from __future__ import annotations

from pymicro.plugins import Build
from pymicro.registry import MemoryCatalog, MemoryRegistry, Registry
from pymicro_testing import ManualClock, Outage, RegistryConformance, Server


class CatalogServer(Server):
    outages = frozenset({Outage.STOP, Outage.FORGET})

    def __init__(self, catalog: MemoryCatalog) -> None:
        self._catalog = catalog

    async def start(self) -> None:
        self._catalog.available = True

    async def stop(self) -> None:
        self._catalog.available = False

    async def forget(self) -> None:
        self._catalog.forget()


class TestMemoryRegistry(RegistryConformance):
    def setup_method(self) -> None:
        self.catalog = MemoryCatalog()
        self.server = CatalogServer(self.catalog)
        self.clock = ManualClock()

    def make(self, build: Build) -> MemoryRegistry:
        return MemoryRegistry(None, build, catalog=self.catalog)

    async def crash(self, registry: Registry) -> None:
        assert isinstance(registry, MemoryRegistry)
        registry.connected = False
