"""The selector cases on the core's selector."""

from __future__ import annotations

from pymicro.plugins import Build
from pymicro.selector import RegistrySelector, RegistrySelectorOptions, Selector
from pymicro_testing import SelectorConformance


class TestRandom(SelectorConformance):
    def make(self, build: Build) -> Selector:
        return RegistrySelector(RegistrySelectorOptions(strategy="random"), build)


class TestRoundRobin(SelectorConformance):
    def make(self, build: Build) -> Selector:
        return RegistrySelector(RegistrySelectorOptions(strategy="round_robin"), build)


class TestLeastConn(SelectorConformance):
    def make(self, build: Build) -> Selector:
        return RegistrySelector(RegistrySelectorOptions(strategy="least_conn"), build)
