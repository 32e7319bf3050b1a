"""Go Micro's HTTP broker for pymicro. Importing it makes `--broker=http` available."""

from pymicro.plugins import enable
from pymicro_broker_http import _plugin
from pymicro_broker_http._options import HttpBrokerOptions

__all__ = ["HttpBrokerOptions"]

enable(_plugin)
