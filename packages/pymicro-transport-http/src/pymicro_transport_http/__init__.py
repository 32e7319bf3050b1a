"""Go Micro's HTTP transport for pymicro. Importing it makes `--transport=http` available."""

from pymicro.plugins import enable
from pymicro_transport_http import _plugin
from pymicro_transport_http._options import HttpOptions

__all__ = ["HttpOptions"]

enable(_plugin)
