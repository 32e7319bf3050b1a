"""The in-memory registry against the kit."""

from __future__ import annotations

from pymicro.plugins import Build
from pymicro.registry import MemoryCatalog, MemoryRegistry, Registry
from pymicro_testing import ManualClock, Outage, RegistryConformance, Server


class CatalogServer(Server):
    """A catalog as a server that can be taken away."""

    outages = frozenset(Outage)

    def __init__(self, catalog: MemoryCatalog) -> None:
        self._catalog = catalog

    async def start(self) -> None:
        self._catalog.available = True

    async def stop(self) -> None:
        self._catalog.available = False

    async def pause(self) -> None:
        await self.stop()  # nothing is waited for in memory: a catalog that hangs is one that is given up

    async def forget(self) -> None:
        self._catalog.available = False
        self._catalog.forget()
        self._catalog.available = True


class TestMemoryRegistry(RegistryConformance):
    def setup_method(self) -> None:
        self.catalog = MemoryCatalog()
        self.clock = ManualClock()
        self.server = CatalogServer(self.catalog)

    def make(self, build: Build) -> MemoryRegistry:
        return MemoryRegistry(None, build, catalog=self.catalog)

    async def crash(self, registry: Registry) -> None:
        assert isinstance(registry, MemoryRegistry)
        registry.connected = False
        await registry.aclose()
