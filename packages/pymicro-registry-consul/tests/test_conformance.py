"""The registry does what every registry must, on a real Consul."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro.registry import Registry
from pymicro_registry_consul import ConsulOptions
from pymicro_registry_consul._registry import ConsulRegistry
from pymicro_testing.faults import FaultProxy
from pymicro_testing.registry import RegistryConformance
from pymicro_testing.servers import ConsulServer

#: Cases that are about being cut off. Consul takes seconds to come back, so in these it is a proxy that goes away.
CUT_OFF = {
    "test_during_an_outage_nobody_knows",
    "test_registering_during_an_outage_is_pending",
}


class TestConsulRegistry(RegistryConformance):
    """With the server's own outages: killed, stopped by a signal, its data deleted."""

    shortest_ttl = 0.5

    @pytest.fixture(autouse=True)
    async def consul(self, consul_server: ConsulServer, request: pytest.FixtureRequest) -> AsyncIterator[None]:
        self.server = consul_server
        self.address_of_server = consul_server.address
        if request.function.__name__ not in CUT_OFF:
            yield
            return
        async with FaultProxy(consul_server.address) as self.server:
            self.address_of_server = self.server.address
            yield

    def make(self, build: Build) -> ConsulRegistry:
        """A registry on this case's server."""
        build = msgspec.structs.replace(build, addresses=(self.address_of_server,), timeout=1.0)
        return ConsulRegistry(ConsulOptions(connect_timeout=0.5, heartbeat=0.2), build)

    async def crash(self, registry: Registry) -> None:
        """Stop renewing."""
        assert isinstance(registry, ConsulRegistry)
        await registry._session.aclose()
