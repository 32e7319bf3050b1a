"""The hook that offers the RabbitMQ broker."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_broker_rabbitmq._options import RabbitmqBrokerOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Topics on a RabbitMQ server."""
    return [
        Plugin(
            kind="broker",
            name="rabbitmq",
            api=(1, 0),
            target="pymicro_broker_rabbitmq._broker:RabbitmqBroker",
            options=RabbitmqBrokerOptions,
        )
    ]
