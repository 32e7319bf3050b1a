"""What the package says of itself, and what it costs a service that has no events."""

from __future__ import annotations

import subprocess
import sys

from pymicro_broker_http import HttpBrokerOptions, _plugin

PROGRAM = """
import asyncio, sys
from pymicro import Service


class Echo:
    async def say(self, text: str) -> str:
        return text


async def main() -> None:
    service = Service("echo", transport="memory", registry="memory", server_address="127.0.0.1:1", drain_delay=0)
    service.handle(Echo())
    async with service:
        assert await service.client.stub("echo", Echo).say("hello") == "hello"
        assert service.settings.choices["broker", ""].plugin.name == "http"
        assert "aiohttp" not in sys.modules and "pymicro_broker_http._broker" not in sys.modules
        await service.publish("nobody", "hello")
        assert "aiohttp" in sys.modules and "aiohttp.web" not in sys.modules


asyncio.run(main())
"""


def test_the_description_is_that_of_the_broker() -> None:
    [plugin] = _plugin.pymicro_plugins()
    assert (plugin.kind, plugin.name, plugin.api, plugin.options) == ("broker", "http", (1, 0), HttpBrokerOptions)
    module, _, name = plugin.target.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name).name == plugin.name


def test_options_have_defaults() -> None:
    assert HttpBrokerOptions() == HttpBrokerOptions(discovery_time=0.1, max_messages=10_000, max_connections=1024)
    assert HttpBrokerOptions().idle_timeout > 90, "Go's clients keep connections for 90 s"


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_broker_http, pymicro_broker_http._broker, sys; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_it_is_the_default_and_a_service_without_events_pays_nothing_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
