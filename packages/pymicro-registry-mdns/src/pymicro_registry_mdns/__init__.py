"""Multicast DNS registry for pymicro. Importing the package is enough to enable it."""

from pymicro.plugins import enable
from pymicro_registry_mdns import _plugin
from pymicro_registry_mdns._options import MdnsOptions

__all__ = ["MdnsOptions"]

enable(_plugin)
