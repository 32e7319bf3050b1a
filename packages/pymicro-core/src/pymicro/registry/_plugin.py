"""The hook that offers the in-memory registry."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Services within one process."""
    return [Plugin(kind="registry", name="memory", api=(1, 0), target="pymicro.registry._memory:MemoryRegistry")]
