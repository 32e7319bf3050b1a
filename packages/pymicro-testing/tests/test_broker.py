"""The broker cases on the in-memory broker."""

from __future__ import annotations

from pymicro.broker import MemoryBroker, MemoryTopics
from pymicro.plugins import Build
from pymicro_testing import BrokerConformance, ManualClock


class TestMemoryBroker(BrokerConformance):
    def setup_method(self) -> None:
        self.topics_of_case = MemoryTopics()
        self.clock = ManualClock()

    def make(self, build: Build) -> MemoryBroker:
        return MemoryBroker(None, build, topics=self.topics_of_case)
