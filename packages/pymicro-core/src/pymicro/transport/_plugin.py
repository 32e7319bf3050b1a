"""The hook that offers the in-memory transport."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Sockets within one process."""
    return [Plugin(kind="transport", name="memory", api=(1, 0), target="pymicro.transport._memory:MemoryTransport")]
