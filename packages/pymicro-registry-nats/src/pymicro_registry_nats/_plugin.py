"""The hook that offers the NATS registry."""

from __future__ import annotations

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_registry_nats._options import NatsRegistryOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Describe the registry."""
    return [
        Plugin(
            kind="registry",
            name="nats",
            api=(1, 0),
            target="pymicro_registry_nats._registry:NatsRegistry",
            options=NatsRegistryOptions,
        )
    ]
