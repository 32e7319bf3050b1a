"""The in-memory registry against the kit."""

from __future__ import annotations

from pymicro.plugins import Build
from pymicro.registry import MemoryCatalog, MemoryRegistry
from pymicro_testing import ManualClock, Outage, RegistryConformance, Server


class CatalogServer(Server):
    """A catalog as a server that can be taken away."""

    outages = frozenset({Outage.STOP, Outage.FORGET})

    def __init__(self, catalog: MemoryCatalog) -> None:
        self._catalog = catalog

    async def start(self) -> None:
        self._catalog.available = True

    async def stop(self) -> None:
        self._catalog.available = False

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
