"""Registry for pymicro in a folder. Importing the package is enough to enable it."""

from pymicro.plugins import enable
from pymicro_registry_folder import _plugin
from pymicro_registry_folder._options import FolderOptions

__all__ = ["FolderOptions"]

enable(_plugin)
