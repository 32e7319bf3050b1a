"""NATS broker for pymicro. Importing it makes `--broker=nats` available."""

from pymicro.plugins import enable
from pymicro_broker_nats import _plugin
from pymicro_broker_nats._options import NatsBrokerOptions, NatsSubscription

__all__ = ["NatsBrokerOptions", "NatsSubscription"]

enable(_plugin)
