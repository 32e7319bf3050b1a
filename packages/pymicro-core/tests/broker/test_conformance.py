from __future__ import annotations

from pymicro.broker import MemoryBroker, MemoryTopics
from pymicro.plugins import Build
from pymicro_testing import BrokerConformance, ManualClock


class TestMemoryBroker(BrokerConformance):
    def setup_method(self) -> None:
        self.clock = ManualClock()
        self.shared = MemoryTopics()

    def make(self, build: Build) -> MemoryBroker:
        return MemoryBroker(build=build, topics=self.shared)
