"""The transport cases on the in-memory transport."""

from __future__ import annotations

from pymicro.plugins import Build
from pymicro.transport import MemoryNetwork, MemoryTransport
from pymicro_testing import TransportConformance


class TestMemoryTransport(TransportConformance):
    def setup_method(self) -> None:
        self.network = MemoryNetwork()

    def make(self, build: Build) -> MemoryTransport:
        return MemoryTransport(None, build, network=self.network)
