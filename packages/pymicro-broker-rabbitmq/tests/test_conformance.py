"""Both configurations keep the contract on a real server, which a proxy takes away; one case kills it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro_broker_rabbitmq import RabbitmqBrokerOptions
from pymicro_broker_rabbitmq._broker import RabbitmqBroker
from pymicro_testing import BrokerConformance
from pymicro_testing.faults import FaultProxy, Outage, Server
from pymicro_testing.servers import RabbitmqServer


class Mortal(Server):
    """The real server, killed; but not in the moment in which a queue was made. The README says why."""

    outages = frozenset({Outage.STOP})

    def __init__(self, server: RabbitmqServer) -> None:
        self.server = server

    async def start(self) -> None:
        """See `NativeServer.start`."""
        await self.server.start()

    async def stop(self) -> None:
        """See `NativeServer.kill`."""
        await self.server.until_written()
        await self.server.kill()


class TestRabbitmqBroker(BrokerConformance):
    """As Go Micro has it."""

    garbled = (3, 40)  # the length of a frame, and something else
    options: ClassVar = RabbitmqBrokerOptions(reconnect_interval=0.1)

    @pytest.fixture(autouse=True)
    async def backend(self, rabbitmq_server: RabbitmqServer) -> AsyncIterator[None]:
        async with FaultProxy(rabbitmq_server.address) as proxy:
            self.server, self.address = proxy, proxy.address
            yield

    def make(self, build: Build) -> RabbitmqBroker:
        """A broker on the server of the session."""
        return RabbitmqBroker(
            self.options, msgspec.structs.replace(build, addresses=build.addresses or (self.address,))
        )


class TestDurableRabbitmqBroker(TestRabbitmqBroker):
    """At least once."""

    patience = 7.0
    options = RabbitmqBrokerOptions(reconnect_interval=0.1, durable=True)

    def asking_for_kept(self, topic: str) -> tuple[str, None]:
        """The queue that is made for a topic that nobody listens to is called as the topic."""
        return topic, None

    @pytest.fixture(autouse=True)
    async def crash(self, request: pytest.FixtureRequest, backend: None, rabbitmq_server: RabbitmqServer) -> None:
        """What the server keeps through its own end, the proxy cannot show; on one loop, since that takes seconds."""
        its_own = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
        if "taken_before_an_outage" in request.node.name and its_own:
            self.server, self.address = Mortal(rabbitmq_server), rabbitmq_server.address
