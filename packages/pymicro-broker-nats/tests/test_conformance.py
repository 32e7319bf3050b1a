"""The cases that every broker passes, in both modes, on a real server that is killed and paused."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from pymicro.broker import Broker
from pymicro.plugins import Build
from pymicro_broker_nats import NatsBrokerOptions, NatsSubscription
from pymicro_broker_nats._broker import NatsBroker
from pymicro_testing import BrokerConformance
from pymicro_testing.servers import NatsServer


class TestCoreNats(BrokerConformance):
    """What Go Micro uses."""

    options: ClassVar[NatsBrokerOptions] = NatsBrokerOptions()
    garbled = (0, 1, 7, 40, 130)
    spread = 40  # the server chooses a member of a queue group by chance

    @pytest.fixture(autouse=True)
    def backend(self, nats_server: NatsServer) -> None:
        self.server = nats_server
        self.address = nats_server.address

    def make(self, build: Build) -> Broker:
        return NatsBroker(self.options, msgspec.structs.replace(build, addresses=build.addresses or (self.address,)))


class TestJetStream(TestCoreNats):
    """At least once."""

    options = NatsBrokerOptions(jetstream=True, ack_wait=2.0)
    spread = 2

    def asking_for_kept(self, topic: str) -> tuple[str, Any]:
        return "", NatsSubscription(deliver="all")
