from pathlib import Path

import pymicro_registry_folder  # noqa: F401 (enables the plugin, as a user's plugins.py does)

from pymicro import Service


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello {name}"


async def test_services_find_each_other(tmp_path: Path) -> None:
    environ = {"MICRO_REGISTRY": "folder", "MICRO_REGISTRY_FOLDER_PATH": str(tmp_path)}
    greeter = Service("greeter", environ=environ, transport="http", server_address="127.0.0.1:0", drain_delay=0)
    greeter.handle(Greeter())
    async with greeter, Service("caller", environ=environ, transport="http") as caller:
        assert await caller.client.stub("greeter", Greeter).hello("John") == "Hello John"
