"""The transport keeps the contract, through a real server."""

from __future__ import annotations

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro.record import Node
from pymicro_testing import TransportConformance
from pymicro_testing.servers import NatsServer
from pymicro_transport_nats import NatsTransportOptions
from pymicro_transport_nats._transport import NatsTransport


class TestNatsTransport(TransportConformance):
    """Between pymicro peers. Go's protocol knows neither ends nor flow control: see test_go.py."""

    @pytest.fixture(autouse=True)
    def backend(self, nats_server: NatsServer) -> None:
        self.address = nats_server.address

    def make(self, build: Build) -> NatsTransport:
        build = msgspec.structs.replace(build, addresses=(self.address,))
        return NatsTransport(NatsTransportOptions(connect_timeout=1.0, peer_interval=0.5), build)

    def node(self, address: str) -> Node:
        return Node("conformance-1", address, {"protocol": "mucp", "frames": "1"})
