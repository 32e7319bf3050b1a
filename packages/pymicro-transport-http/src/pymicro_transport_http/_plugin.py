"""The hook that offers the HTTP transport."""

from collections.abc import Sequence

from pymicro.plugins import Plugin, hookimpl
from pymicro_transport_http._options import HttpOptions


@hookimpl
def pymicro_plugins() -> Sequence[Plugin]:
    """Go Micro's default transport."""
    return [
        Plugin(
            kind="transport",
            name="http",
            api=(1, 0),
            target="pymicro_transport_http._transport:HttpTransport",
            options=HttpOptions,
        )
    ]
