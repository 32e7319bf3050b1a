"""The hook that offers the RabbitMQ transport."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_transport_rabbitmq._options import RabbitmqTransportOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Calls and streams through queues of a RabbitMQ server."""
    return [
        Plugin(
            kind="transport",
            name="rabbitmq",
            api=(1, 0),
            target="pymicro_transport_rabbitmq._transport:RabbitmqTransport",
            options=RabbitmqTransportOptions,
        )
    ]
