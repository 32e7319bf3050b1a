"""Consul registry for pymicro. Importing the package is enough to enable it."""

from pymicro.plugins import enable
from pymicro_registry_consul import _plugin
from pymicro_registry_consul._options import ConsulOptions

__all__ = ["ConsulOptions"]

enable(_plugin)
