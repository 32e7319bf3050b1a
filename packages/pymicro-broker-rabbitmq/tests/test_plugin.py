"""What the package says of itself."""

from __future__ import annotations

import subprocess
import sys

from pymicro.broker import Capability
from pymicro_broker_rabbitmq import RabbitmqBrokerOptions, _plugin
from pymicro_broker_rabbitmq._broker import RabbitmqBroker


def test_the_description_is_that_of_the_broker() -> None:
    [plugin] = _plugin.pymicro_plugins()
    assert (plugin.kind, plugin.name, plugin.api, plugin.options) == (
        "broker",
        "rabbitmq",
        (1, 0),
        RabbitmqBrokerOptions,
    )
    module, _, name = plugin.target.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name).name == plugin.name


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_broker_rabbitmq, sys; sys.exit('aiormq' in sys.modules or 'aio_pika' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_only_the_durable_configuration_promises_to_deliver() -> None:
    assert RabbitmqBroker().capabilities == {Capability.ORDERED, Capability.QUEUES}
    durable = RabbitmqBroker(RabbitmqBrokerOptions(durable=True))
    assert durable.capabilities == {
        Capability.AT_LEAST_ONCE,
        Capability.ORDERED,
        Capability.QUEUES,
        Capability.REDELIVERY,
    }
