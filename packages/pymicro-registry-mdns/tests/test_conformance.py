"""The registry does what every registry must."""

from __future__ import annotations

import uuid

from pymicro.plugins import Build
from pymicro_registry_mdns._options import MdnsOptions
from pymicro_registry_mdns._registry import MdnsRegistry
from pymicro_testing.registry import RegistryConformance


class TestMdnsRegistry(RegistryConformance):
    """On loopback, in a domain of its own."""

    def setup_method(self) -> None:
        self.options = MdnsOptions(domain=f"t{uuid.uuid4().hex[:12]}", interfaces=("127.0.0.1",), refresh=0.5)

    def make(self, build: Build) -> MdnsRegistry:
        """A registry of this case's domain."""
        return MdnsRegistry(self.options, build)
