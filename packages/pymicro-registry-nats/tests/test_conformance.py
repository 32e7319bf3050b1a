"""The registry does what every registry must, on a real server."""

from __future__ import annotations

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro.registry import Registry
from pymicro_registry_nats import NatsRegistryOptions
from pymicro_registry_nats._registry import NatsRegistry
from pymicro_testing import RegistryConformance
from pymicro_testing.servers import NatsServer


class TestNatsRegistry(RegistryConformance):
    """With the server's own outages: killed, stopped by a signal."""

    @pytest.fixture(autouse=True)
    def backend(self, nats_server: NatsServer) -> None:
        self.server = nats_server
        self.address_of_server = nats_server.address

    def make(self, build: Build) -> NatsRegistry:
        """A registry on this case's server."""
        build = msgspec.structs.replace(build, addresses=(self.address_of_server,), timeout=1.5)
        options = NatsRegistryOptions(connect_timeout=0.5, ping_interval=0.5, query_time=0.05, refresh=0.5)
        return NatsRegistry(options, build)

    async def crash(self, registry: Registry) -> None:
        """Answer no more."""
        assert isinstance(registry, NatsRegistry)
        assert registry._presence is not None
        assert registry._link is not None
        await registry._presence.aclose()
        await registry._link.aclose()
