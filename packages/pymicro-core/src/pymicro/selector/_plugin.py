"""The hook that offers the default selector."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro.selector._registry import RegistrySelectorOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Nodes from the watched registry."""
    return [
        Plugin(
            kind="selector",
            name="registry",
            aliases=("cache",),
            api=(1, 0),
            target="pymicro.selector._registry:RegistrySelector",
            options=RegistrySelectorOptions,
            requires=("registry",),
        )
    ]
