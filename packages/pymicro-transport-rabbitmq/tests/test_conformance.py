"""The contract of a transport, on a real server."""

from __future__ import annotations

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro.record import Node
from pymicro_testing import TransportConformance
from pymicro_testing.servers import RabbitmqServer
from pymicro_transport_rabbitmq import RabbitmqTransportOptions
from pymicro_transport_rabbitmq._transport import RabbitmqTransport


class TestRabbitmqTransport(TransportConformance):
    """Between pymicro's peers."""

    @pytest.fixture(autouse=True)
    def backend(self, rabbitmq_server: RabbitmqServer) -> None:
        self.address = rabbitmq_server.address

    def make(self, build: Build) -> RabbitmqTransport:
        """A transport on the server of the session."""
        options = RabbitmqTransportOptions(reconnect_interval=0.1, check_interval=0.1)
        return RabbitmqTransport(options, msgspec.structs.replace(build, addresses=(self.address,)))

    def node(self, address: str) -> Node:
        """A node that says what its transport says of it."""
        return Node("conformance-1", address, {"protocol": "mucp", **RabbitmqTransport.node_metadata})
