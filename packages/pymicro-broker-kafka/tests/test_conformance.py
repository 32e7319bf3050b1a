"""The broker keeps the contract, through outages of the server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro_broker_kafka import KafkaBrokerOptions, KafkaSubscription
from pymicro_broker_kafka._broker import KafkaBroker
from pymicro_testing import BrokerConformance
from pymicro_testing.servers import KafkaServer


class TestKafka(BrokerConformance):
    options = KafkaBrokerOptions(heartbeat=0.1, session_timeout=3.0, partitions=2)

    @pytest.fixture(autouse=True)
    def backend(self, kafka_server: KafkaServer) -> None:
        self.server = kafka_server
        self.address = kafka_server.address

    def asking_for_kept(self, topic: str) -> tuple[str, Any]:
        """A queue that begins with what is there."""
        return "readers", KafkaSubscription(start="kept")

    def make(self, build: Build) -> KafkaBroker:
        """A broker on the session's server."""
        return KafkaBroker(self.options, msgspec.structs.replace(build, addresses=(self.address,)))
