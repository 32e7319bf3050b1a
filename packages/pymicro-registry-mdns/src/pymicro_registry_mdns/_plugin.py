"""The hook that offers the mDNS registry."""

from __future__ import annotations

from pymicro.plugins import Plugin, hookimpl
from pymicro_registry_mdns._options import MdnsOptions


@hookimpl
def pymicro_plugins() -> list[Plugin]:
    """Describe the registry."""
    return [
        Plugin(
            kind="registry",
            name="mdns",
            api=(1, 0),
            target="pymicro_registry_mdns._registry:MdnsRegistry",
            options=MdnsOptions,
        )
    ]
