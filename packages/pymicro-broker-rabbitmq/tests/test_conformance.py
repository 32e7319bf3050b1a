"""Both configurations keep the contract on a real server: paused on both loops, and killed on one."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro_broker_rabbitmq import RabbitmqBrokerOptions
from pymicro_broker_rabbitmq._broker import RabbitmqBroker
from pymicro_testing import BrokerConformance
from pymicro_testing.faults import Outage, Server
from pymicro_testing.servers import RabbitmqServer


class Pausable(Server):
    """The real server, paused and no more than that: to start it takes seconds."""

    outages = frozenset({Outage.PAUSE})

    def __init__(self, server: RabbitmqServer) -> None:
        self.server = server

    async def start(self) -> None:
        """See `NativeServer.start`."""
        await self.server.start()

    async def pause(self) -> None:
        """See `NativeServer.pause`."""
        await self.server.pause()


class Mortal(Pausable):
    """The real server, also killed; but not in the moment in which a queue was made. The README says why."""

    outages = frozenset({Outage.PAUSE, Outage.STOP})

    async def stop(self) -> None:
        """See `NativeServer.kill`."""
        await self.server.until_written()
        await self.server.kill()


class TestRabbitmqBroker(BrokerConformance):
    """As Go Micro has it."""

    options: ClassVar = RabbitmqBrokerOptions(reconnect_interval=0.1)

    @pytest.fixture(autouse=True)
    def backend(self, rabbitmq_server: RabbitmqServer) -> None:
        self.server = Pausable(rabbitmq_server)
        self.address = rabbitmq_server.address

    def make(self, build: Build) -> RabbitmqBroker:
        """A broker on the server of the session."""
        return RabbitmqBroker(self.options, msgspec.structs.replace(build, addresses=(self.address,)))


class TestDurableRabbitmqBroker(TestRabbitmqBroker):
    """At least once; on asyncio's own loop through crashes, too."""

    patience = 7.0
    options = RabbitmqBrokerOptions(reconnect_interval=0.1, durable=True)

    def asking_for_kept(self, topic: str) -> tuple[str, None]:
        """The queue that is made for a topic that nobody listens to is called as the topic."""
        return topic, None

    @pytest.fixture(autouse=True)
    async def backend(self, rabbitmq_server: RabbitmqServer) -> None:
        own = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
        self.server = Mortal(rabbitmq_server) if own else Pausable(rabbitmq_server)
        self.address = rabbitmq_server.address
