"""The hook. It describes the plugin and imports nothing of it: that happens when somebody chooses it."""

from typing import Annotated

import msgspec

from pymicro.plugins import Plugin, enable, hookimpl
from pymicro.plugins.toolkit import option


class StaticFileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is a flag, an environment variable and a line of --help."""

    path: Annotated[str, option("File with the addresses of each service, JSON.")] = "services.json"


@hookimpl
def pymicro_plugins() -> list[Plugin]:
    return [
        Plugin(
            kind="registry",
            name="static_file",
            api=(1, 0),
            target="static_file:StaticFile",
            options=StaticFileOptions,
        )
    ]


enable(__name__)
