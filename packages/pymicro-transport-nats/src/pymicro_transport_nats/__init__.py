"""NATS transport for pymicro. Importing the package is enough to enable it."""

from pymicro.plugins import enable
from pymicro_transport_nats import _plugin
from pymicro_transport_nats._options import NatsTransportOptions

__all__ = ["NatsTransportOptions"]

enable(_plugin)
