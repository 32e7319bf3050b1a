"""The hook that offers the Consul registry."""

from __future__ import annotations

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_registry_consul._options import ConsulOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Describe the registry."""
    return [
        Plugin(
            kind="registry",
            name="consul",
            api=(1, 0),
            target="pymicro_registry_consul._registry:ConsulRegistry",
            options=ConsulOptions,
        )
    ]
