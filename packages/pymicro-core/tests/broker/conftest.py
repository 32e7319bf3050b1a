from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from pymicro.broker import Capability, Consumer, Delivery, MemoryBroker, Settlement
from pymicro.message import Message
from pymicro.plugins import Build
from pymicro_testing import ManualClock


class ScriptedConsumer(Consumer):
    """A consumer of the memory broker that fails when the test says so, and remembers what it was told."""

    def __init__(self, inner: Consumer, broker: ScriptedBroker) -> None:
        self._inner = inner
        self._broker = broker
        self.lease = broker.lease

    @property
    def attached(self) -> bool:
        return self._inner.attached

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        self._broker.fail("receive")
        return await self._inner.receive(max)

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        self._broker.fail("settle")
        self._broker.told.append((delivery.message.body, settlement))
        await self._inner.settle(delivery, settlement)

    async def extend(self, delivery: Delivery[Any]) -> None:
        self._broker.fail("extend")
        self._broker.extended.append(delivery.message.body)

    async def detach(self) -> None:
        self._broker.fail("detach")
        await self._inner.detach()

    async def aclose(self) -> None:
        await self._inner.aclose()


class ScriptedBroker(MemoryBroker):
    """The memory broker with fewer abilities, with leases, and with faults by the name of the method."""

    def __init__(self, build: Build) -> None:
        super().__init__(build=build)
        self.lease: float | None = None
        self.faults: dict[str, Exception] = {}
        self.calls: list[str] = []
        self.told: list[tuple[bytes, Settlement]] = []
        self.extended: list[bytes] = []
        self.consumers: list[Consumer] = []

    def lack(self, *capabilities: Capability) -> None:
        self.capabilities = self.capabilities - set(capabilities)

    def fail(self, method: str) -> None:
        self.calls.append(method)
        if method in self.faults:
            raise self.faults[method]

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        self.fail("publish")
        await super().publish(topic, message, key=key, keep=keep, timeout=timeout)

    async def put(self, *bodies: bytes, key: str | None = None) -> None:
        for body in bodies:
            await self.publish("t", Message(body=body), key=key, timeout=1.0)

    async def dead_letters(self) -> list[Delivery[Any]]:
        """Collects what arrives among the dead letters of `t` from now on."""
        found: list[Delivery[Any]] = []
        consumer = await self.consume("t.dead")

        async def collect() -> None:
            while True:
                found.extend(await consumer.receive(10))

        task = asyncio.ensure_future(collect())
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return found

    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        self.fail("consume")
        consumer = ScriptedConsumer(await super().consume(topic, queue=queue, prefetch=prefetch, native=native), self)
        self.consumers.append(consumer)
        return consumer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def broker(clock: ManualClock) -> AsyncIterator[ScriptedBroker]:
    async with ScriptedBroker(Build(clock=clock)) as broker:
        yield broker
