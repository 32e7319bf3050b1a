"""The registry does what every registry must, on a real etcd."""

from __future__ import annotations

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro.registry import Registry
from pymicro_registry_etcd import EtcdOptions
from pymicro_registry_etcd._registry import EtcdRegistry
from pymicro_testing.registry import RegistryConformance
from pymicro_testing.servers import EtcdServer


class TestEtcdRegistry(RegistryConformance):
    """With the server's own outages: killed, stopped by a signal, its data deleted."""

    @pytest.fixture(autouse=True)
    def etcd(self, etcd_server: EtcdServer) -> None:
        self.server = etcd_server

    def make(self, build: Build) -> EtcdRegistry:
        """A registry on this case's server."""
        assert isinstance(self.server, EtcdServer)
        build = msgspec.structs.replace(build, addresses=(self.server.address,), timeout=1.0)
        return EtcdRegistry(EtcdOptions(connect_timeout=0.5), build)

    async def crash(self, registry: Registry) -> None:
        """Stop renewing."""
        assert isinstance(registry, EtcdRegistry)
        await registry._session.aclose()
