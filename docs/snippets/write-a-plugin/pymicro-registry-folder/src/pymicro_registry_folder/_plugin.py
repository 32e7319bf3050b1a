from pymicro.plugins import Plugin, hookimpl
from pymicro_registry_folder._options import FolderOptions


@hookimpl
def pymicro_plugins() -> list[Plugin]:
    return [
        Plugin(
            kind="registry",
            name="folder",
            api=(1, 0),
            target="pymicro_registry_folder._registry:FolderRegistry",
            options=FolderOptions,
        )
    ]
