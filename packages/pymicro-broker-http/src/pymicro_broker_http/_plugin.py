"""The hook that offers the HTTP broker."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_broker_http._options import HttpBrokerOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Go Micro's default broker."""
    return [
        Plugin(
            kind="broker",
            name="http",
            api=(1, 0),
            target="pymicro_broker_http._broker:HttpBroker",
            options=HttpBrokerOptions,
            requires=("registry",),
        )
    ]
