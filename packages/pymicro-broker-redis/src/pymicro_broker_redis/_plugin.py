"""The hook that offers the Redis broker."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_broker_redis._options import RedisBrokerOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Redis streams, or publish/subscribe as Go Micro's plugin has it."""
    return [
        Plugin(
            kind="broker",
            name="redis",
            api=(1, 0),
            target="pymicro_broker_redis._broker:RedisBroker",
            options=RedisBrokerOptions,
        )
    ]
