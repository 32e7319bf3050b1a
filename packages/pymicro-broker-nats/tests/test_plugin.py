"""What the package says of itself, and what it costs who does not use it."""

from __future__ import annotations

import subprocess
import sys

from pymicro import Service
from pymicro.broker import Capability
from pymicro_broker_nats import NatsBrokerOptions, _plugin
from pymicro_broker_nats._broker import NatsBroker
from pymicro_testing.servers import NatsServer


def test_the_description_is_that_of_the_broker() -> None:
    [plugin] = _plugin.pymicro_plugins()
    assert (plugin.kind, plugin.name, plugin.api, plugin.options) == ("broker", "nats", (1, 0), NatsBrokerOptions)
    module, _, name = plugin.target.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name).name == plugin.name


def test_it_promises_what_it_is_configured_for() -> None:
    core = NatsBroker().capabilities
    assert core == {Capability.ORDERED, Capability.QUEUES}
    assert NatsBroker(NatsBrokerOptions(jetstream=True)).capabilities == set(Capability)


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_broker_nats, pymicro_broker_nats._broker, sys; sys.exit('nats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_a_service_chooses_it_by_flags(nats_server: NatsServer) -> None:
    service = Service("shop", registry="memory", transport="memory")
    service.init(["--broker=nats", f"--broker_address={nats_server.address}", "--broker_nats_jetstream=true"])
    async with service, service.subscription("orders", str, queue="packing") as orders:
        await service.publish("orders", "one")
        async for order in orders:
            assert order.value == "one"
            assert type(order.native).__module__ == "nats.aio.msg"
            break
