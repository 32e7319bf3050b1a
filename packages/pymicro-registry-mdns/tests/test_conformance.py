"""The registry does what every registry must."""

from __future__ import annotations

import os
import sys
import uuid
from typing import Any

import pytest

from pymicro.plugins import Build
from pymicro.registry import Registry
from pymicro_registry_mdns import MdnsOptions
from pymicro_registry_mdns._registry import MdnsRegistry
from pymicro_testing.faults import Outage, Server
from pymicro_testing.registry import RegistryConformance


class Loopback(Server):
    """What stands in for a server: the loopback interface of the test's own network."""

    outages = frozenset({Outage.STOP})  # there is nobody who could hang or forget

    def __init__(self, network: Any) -> None:
        self._network = network

    async def start(self) -> None:
        """Take it up."""
        self._network.run("ip link set lo up")

    async def stop(self) -> None:
        """Take it down."""
        self._network.run("ip link set lo down")


class TestMdnsRegistry(RegistryConformance):
    """On loopback, in a domain of its own; where the system allows it in a network of its own, for the outages."""

    @pytest.fixture(autouse=True)
    async def host(self, request: pytest.FixtureRequest) -> None:
        self.options = MdnsOptions(domain=f"t{uuid.uuid4().hex[:12]}", interfaces=("127.0.0.1",), refresh=0.25)
        if sys.platform == "linux" and os.geteuid() == 0:
            self.server = Loopback(request.getfixturevalue("network"))
            await self.server.start()

    def make(self, build: Build) -> MdnsRegistry:
        """A registry of this case's domain."""
        return MdnsRegistry(self.options, build)

    async def crash(self, registry: Registry) -> None:
        """Close the sockets without a goodbye."""
        assert isinstance(registry, MdnsRegistry)
        await registry._network.aclose()
