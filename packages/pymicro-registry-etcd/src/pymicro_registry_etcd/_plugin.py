"""The hook that offers the etcd registry."""

from __future__ import annotations

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_registry_etcd._options import EtcdOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Describe the registry."""
    return [
        Plugin(
            kind="registry",
            name="etcd",
            api=(1, 0),
            target="pymicro_registry_etcd._registry:EtcdRegistry",
            options=EtcdOptions,
        )
    ]
