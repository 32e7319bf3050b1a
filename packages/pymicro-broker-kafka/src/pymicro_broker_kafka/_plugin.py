"""The hook that offers the Kafka broker."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_broker_kafka._options import KafkaBrokerOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Topics on Kafka."""
    return [
        Plugin(
            kind="broker",
            name="kafka",
            api=(1, 0),
            target="pymicro_broker_kafka._broker:KafkaBroker",
            options=KafkaBrokerOptions,
        )
    ]
