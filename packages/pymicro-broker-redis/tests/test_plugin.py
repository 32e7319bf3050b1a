"""What the package says of itself, and what it costs a service that has no events."""

from __future__ import annotations

import subprocess
import sys

from pymicro.broker import Capability
from pymicro_broker_redis import RedisBrokerOptions, _plugin
from pymicro_broker_redis._broker import RedisBroker

PROGRAM = """
import asyncio, sys
from pymicro import Service


async def main() -> None:
    service = Service("quiet", transport="memory", registry="memory", broker="redis", drain_delay=0)
    async with service:
        assert service.settings.choices["broker", ""].plugin.name == "redis"
        assert "redis" not in sys.modules and "pymicro_broker_redis._broker" not in sys.modules


asyncio.run(main())
"""


def test_the_description_is_that_of_the_broker() -> None:
    [plugin] = _plugin.pymicro_plugins()
    assert (plugin.kind, plugin.name, plugin.api, plugin.options) == ("broker", "redis", (1, 0), RedisBrokerOptions)
    module, _, name = plugin.target.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name).name == plugin.name


def test_capabilities_are_those_of_the_mode() -> None:
    assert RedisBroker().capabilities == set(Capability)
    assert RedisBroker(RedisBrokerOptions(mode="pubsub")).capabilities == {Capability.ORDERED}


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_broker_redis, pymicro_broker_redis._broker, sys; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_service_without_events_pays_nothing_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
