import tempfile

from pymicro_registry_folder._options import FolderOptions
from pymicro_registry_folder._registry import FolderRegistry

from pymicro.plugins import Build
from pymicro.registry import Registry
from pymicro_testing import RegistryConformance


class TestFolderRegistry(RegistryConformance):
    shortest_ttl = 0.3  # cases about leases wait that long

    def setup_method(self) -> None:
        self._folder = tempfile.TemporaryDirectory()

    def teardown_method(self) -> None:
        self._folder.cleanup()

    def make(self, build: Build) -> FolderRegistry:
        return FolderRegistry(FolderOptions(path=self._folder.name, refresh=0.02), build)

    async def crash(self, registry: Registry) -> None:
        """Stop renewing, as a process that was killed."""
        assert isinstance(registry, FolderRegistry)
        for registration in registry.registrations:
            registration.renewal.cancel()
