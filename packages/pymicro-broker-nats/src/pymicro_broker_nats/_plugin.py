"""The hook that offers the NATS broker."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_broker_nats._options import NatsBrokerOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Core NATS, or JetStream."""
    return [
        Plugin(
            kind="broker",
            name="nats",
            api=(1, 0),
            target="pymicro_broker_nats._broker:NatsBroker",
            options=NatsBrokerOptions,
        )
    ]
