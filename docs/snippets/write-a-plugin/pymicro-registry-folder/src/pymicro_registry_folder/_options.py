from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class FolderOptions(msgspec.Struct, frozen=True, kw_only=True):
    path: Annotated[str, option("Folder that all services can read and write.")] = "services"
    refresh: Annotated[float, option("How often a watch looks at it.", unit="seconds", gt=0)] = 0.5
