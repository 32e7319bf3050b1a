"""The default selector against the kit."""

from __future__ import annotations

from pymicro.plugins import Build
from pymicro.selector import RegistrySelector, RegistrySelectorOptions
from pymicro_testing import SelectorConformance


class TestRandom(SelectorConformance):
    def make(self, build: Build) -> RegistrySelector:
        return RegistrySelector(None, build)


class TestRoundRobin(SelectorConformance):
    def make(self, build: Build) -> RegistrySelector:
        return RegistrySelector(RegistrySelectorOptions(strategy="round_robin"), build)


class TestLeastConn(SelectorConformance):
    def make(self, build: Build) -> RegistrySelector:
        return RegistrySelector(RegistrySelectorOptions(strategy="least_conn"), build)
