"""The hook that offers the in-memory broker."""

from collections.abc import Sequence

from pymicro.broker._memory import MemoryBrokerOptions
from pymicro.plugins import Plugin, hookimpl


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Queues within one process."""
    return [
        Plugin(
            kind="broker",
            name="memory",
            api=(1, 0),
            target="pymicro.broker._memory:MemoryBroker",
            options=MemoryBrokerOptions,
        )
    ]
