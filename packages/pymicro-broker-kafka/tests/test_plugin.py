"""What the package says of itself, and what it costs who does not use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pymicro import Service
from pymicro.broker import Capability
from pymicro.errors import ConfigurationError
from pymicro.plugins import Build
from pymicro_broker_kafka import KafkaBrokerOptions, _plugin
from pymicro_broker_kafka._broker import KafkaBroker
from pymicro_testing.servers import KafkaServer


def test_the_description_is_that_of_the_broker() -> None:
    [plugin] = _plugin.pymicro_plugins()
    assert (plugin.kind, plugin.name, plugin.api, plugin.options) == ("broker", "kafka", (1, 0), KafkaBrokerOptions)
    module, _, name = plugin.target.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name).name == plugin.name


def test_it_keeps_delays_in_the_process_and_promises_the_rest() -> None:
    assert KafkaBroker().capabilities == set(Capability) - {Capability.DELAY}


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_broker_kafka, pymicro_broker_kafka._broker, sys; sys.exit('kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("address", ["kafka://127.0.0.1:9092", "127.0.0.1:1-2", ":9092", "127.0.0.1:0"])
async def test_addresses_of_another_form_are_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="address"):
        await KafkaBroker(build=Build(addresses=(address,))).__aenter__()


async def test_a_service_chooses_it_by_flags(kafka_server: KafkaServer) -> None:
    service = Service("shop", registry="memory", transport="memory")
    service.init(["--broker=kafka", f"--broker_address={kafka_server.address}", "--broker_kafka_partitions=1"])
    async with service, service.subscription("orders", str, queue="packing") as orders:
        await service.publish("orders", "one")
        async for order in orders:
            assert order.value == "one"
            assert (order.native.topic, order.native.partition) == ("orders", 0)
            break
