"""etcd registry for pymicro. Importing the package is enough to enable it."""

from pymicro.plugins import enable
from pymicro_registry_etcd import _plugin
from pymicro_registry_etcd._options import EtcdOptions

__all__ = ["EtcdOptions"]

enable(_plugin)
