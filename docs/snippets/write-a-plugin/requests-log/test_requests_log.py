import logging

import pytest
import requests_log  # noqa: F401 (enabled)

from pymicro_testing import Mesh


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello {name}"


async def test_calls_are_logged(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with mesh.serve(Greeter()) as greeter:
            await greeter.hello("John")
    assert "Greeter.Hello from memory-client:1" in caplog.messages
