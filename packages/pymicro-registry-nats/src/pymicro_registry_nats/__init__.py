"""NATS registry for pymicro. Importing the package is enough to enable it."""

from pymicro.plugins import enable
from pymicro_registry_nats import _plugin
from pymicro_registry_nats._options import NatsRegistryOptions

__all__ = ["NatsRegistryOptions"]

enable(_plugin)
