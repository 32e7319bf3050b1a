import importlib
import tomllib
from pathlib import Path

import pymicro_registry_folder  # noqa: F401 (importing it is enough to enable it)

from pymicro import Service


def test_the_entry_point_is_the_hook() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    (entry,) = project["entry-points"]["pymicro.plugins"].items()
    plugin = importlib.import_module(entry[1]).pymicro_plugins()[0]
    assert entry[0] == f"{plugin.kind}.{plugin.name}"


# region find
class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello {name}"


async def test_services_find_each_other(tmp_path: Path) -> None:
    environ = {"MICRO_REGISTRY": "folder", "MICRO_REGISTRY_FOLDER_PATH": str(tmp_path)}
    greeter = Service("greeter", environ=environ, transport="http", server_address="127.0.0.1:0", drain_delay=0)
    greeter.handle(Greeter())
    async with greeter, Service("caller", environ=environ, transport="http") as caller:
        assert await caller.client.stub("greeter", Greeter).hello("John") == "Hello John"


# endregion
