"""What the cases for brokers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, ClassVar, Final

import pytest

from pymicro.broker import Ack, Broker, Capability, Consumer, Delivery
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro_testing._conformance import Conformance

QUEUE: Final = "workers"


class BrokerBase(Conformance[Broker]):
    """See `BrokerConformance`."""

    garbled: ClassVar[Sequence[int]] = ()
    altered: ClassVar[int] = 1

    def needs(self, broker: Broker, *capabilities: Capability) -> None:
        """Skip the case unless the broker declares these."""
        for capability in capabilities:
            if capability not in broker.capabilities:
                pytest.skip(f"the capability {capability.value!r} is not declared")

    @asynccontextmanager
    async def consuming(
        self, broker: Broker, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None
    ) -> AsyncIterator[Consumer]:
        """A consumer that is closed at the end."""
        consume = broker.consume(topic, queue=queue, prefetch=prefetch, native=native)
        async with aclosing(await self.within(consume)) as consumer:
            yield consumer

    async def publish(
        self, broker: Broker, topic: str, *bodies: str, key: str | None = None, keep: bool = False
    ) -> None:
        """Publish texts one after the other."""
        for body in bodies:
            await self.within(broker.publish(topic, text(body), key=key, keep=keep, timeout=self.patience))

    async def receive(self, consumer: Consumer, count: int) -> list[Delivery[Any]]:
        """`count` deliveries; they stay unsettled."""
        deliveries: list[Delivery[Any]] = []
        while len(deliveries) < count:
            received = await self.within(consumer.receive(count - len(deliveries)))
            assert 1 <= len(received) <= count - len(deliveries)
            deliveries += received
        return deliveries

    async def take(self, consumer: Consumer, count: int) -> list[str]:
        """The bodies of `count` deliveries, each acknowledged."""
        bodies: list[str] = []
        while len(bodies) < count:
            for delivery in await self.within(consumer.receive(count - len(bodies))):
                bodies.append(body_of(delivery))
                await self.within(consumer.settle(delivery, Ack()))
        return bodies

    async def take_together(self, bodies: list[str], count: int, *consumers: Consumer) -> None:
        """Take from all consumers at the same time until there are `count` bodies."""

        async def take_on(consumer: Consumer) -> None:
            while len(bodies) < count:
                bodies.extend(await self.take(consumer, 1))

        taking = [asyncio.create_task(take_on(consumer)) for consumer in consumers]
        try:
            done, _ = await asyncio.wait(taking, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in taking:
                await self.cancelled(task)

    async def nothing(self, *consumers: Consumer) -> None:
        """Fail if any of the consumers is handed something within `quiet` seconds."""
        waiting = [asyncio.create_task(consumer.receive(1)) for consumer in consumers]
        try:
            done, _ = await asyncio.wait(waiting, timeout=self.quiet)
            assert not done, f"no delivery was due, but one came: {done!r}"
        finally:
            for receiving in waiting:
                await self.cancelled(receiving)

    async def until_attached(self, consumer: Consumer, attached: bool) -> None:
        """Wait until the consumer is attached, or is not."""

        async def changed() -> bool:
            return consumer.attached is attached

        await self.eventually(changed, f"attached is {attached}")


def text(body: str, headers: dict[str, str] | None = None) -> Message:
    """A message with a text as its body."""
    return Message(Headers({"Content-Type": "text/plain", **(headers or {})}), body.encode())


def body_of(delivery: Delivery[Any]) -> str:
    """The text of a delivery."""
    return delivery.message.body.decode()


def bodies_of(deliveries: Sequence[Delivery[Any]]) -> list[str]:
    """The texts of deliveries."""
    return [body_of(delivery) for delivery in deliveries]
