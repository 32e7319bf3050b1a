"""The broker keeps the contract in both modes, through outages of the server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro_broker_redis import RedisBrokerOptions, RedisSubscription
from pymicro_broker_redis._broker import RedisBroker
from pymicro_testing import BrokerConformance
from pymicro_testing.servers import RedisServer


class TestStreams(BrokerConformance):
    garbled = (0, 7, 40)
    options = RedisBrokerOptions(claim_after=2)

    @pytest.fixture(autouse=True)
    def backend(self, redis_server: RedisServer) -> None:
        self.server = redis_server
        self.address = redis_server.address

    def asking_for_kept(self, topic: str) -> tuple[str, Any]:
        """A queue begins with what the topic has, if it asks for that."""
        return "readers", RedisSubscription(start="kept")

    def make(self, build: Build) -> RedisBroker:
        """A broker on the session's server."""
        return RedisBroker(self.options, msgspec.structs.replace(build, addresses=build.addresses or (self.address,)))


class TestChannels(TestStreams):
    options = RedisBrokerOptions(mode="pubsub")
    altered = 0  # the envelope tells
