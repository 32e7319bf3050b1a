"""The hook that offers the NATS transport."""

from __future__ import annotations

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_transport_nats._options import NatsTransportOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Describe the transport."""
    return [
        Plugin(
            kind="transport",
            name="nats",
            api=(1, 0),
            target="pymicro_transport_nats._transport:NatsTransport",
            options=NatsTransportOptions,
        )
    ]
