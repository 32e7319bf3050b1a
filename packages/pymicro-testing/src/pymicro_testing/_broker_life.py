"""Cases about consumers and brokers that are cancelled, detached, closed, or lose their server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import product

import pytest

from pymicro.broker import Ack, Broker, Capability, Consumer, Retry
from pymicro.errors import BackendUnavailable, Closed, ConnectionFailed
from pymicro_testing._broker_base import QUEUE, BrokerBase, bodies_of, body_of, text
from pymicro_testing._guard import since
from pymicro_testing.faults import FaultProxy, Outage
from pymicro_testing.leaks import no_leaks


class BrokerLife(BrokerBase):
    """See `BrokerConformance`."""

    # Cancellation

    @since("0.1")
    async def test_a_cancelled_receive_loses_nothing(self) -> None:
        async with self.pair() as (broker, other):
            topic = self.unique("cancel")
            async with self.consuming(other, topic, prefetch=1000) as consumer:
                sent = [str(number) for number in range(200)]
                publishing = asyncio.create_task(self.publish(broker, topic, *sent, key="one"))
                arrived: list[str] = []
                for attempt in range(100):
                    receiving = asyncio.create_task(consumer.receive(1))
                    for _ in range(attempt % 7):
                        await asyncio.sleep(0)
                    if not await self.cancelled(receiving):
                        arrived += bodies_of(receiving.result())
                arrived += bodies_of(await self.receive(consumer, len(sent) - len(arrived)))
                await self.within(publishing)
                assert sorted(arrived, key=int) == sent
                await self.nothing(consumer)

    @since("0.1")
    async def test_a_cancelled_publish_harms_nobody(self) -> None:
        async with self.pair() as (broker, other):
            topic = self.unique("cancel")
            async with self.consuming(other, topic) as consumer:
                for turns in range(10):
                    publishing = asyncio.create_task(self.publish(broker, topic, str(turns)))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await self.cancelled(publishing)
                await self.publish(broker, topic, "last")
                arrived: list[str] = []
                while "last" not in arrived:
                    arrived += await self.take(consumer, 1)
                assert len(set(arrived)) == len(arrived), "a cancelled publish arrived twice"

    @since("0.1")
    async def test_a_cancelled_publish_is_cancelled(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("cancel")
            await self.publish(broker, topic, "first")  # whatever a first message needs is there
            for steps in range(60):  # of the event loop, so that it is cancelled wherever it may be
                publishing = asyncio.create_task(broker.publish(topic, text("next"), timeout=self.patience))
                for _ in range(steps):
                    await asyncio.sleep(0)
                finished = publishing.done()
                assert await self.cancelled(publishing) or finished, "the cancellation was lost"

    @since("0.1")
    async def test_a_cancelled_consume_leaves_nothing_behind(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("cancel")
            for turns in range(10):
                attaching = asyncio.create_task(broker.consume(topic, queue=QUEUE))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if not await self.cancelled(attaching):
                    await attaching.result().aclose()
            async with self.consuming(broker, topic, queue=QUEUE) as consumer:
                await self.publish(broker, topic, "one")
                assert await self.take(consumer, 1) == ["one"]

    # Consumers

    @since("0.1")
    async def test_a_detached_consumer_hands_out_what_it_has(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("detach")
            async with self.consuming(broker, topic) as consumer:
                await self.publish(broker, topic, "held", "waiting")
                (held,) = await self.receive(consumer, 1)
                await self.within(asyncio.gather(consumer.detach(), consumer.detach()))
                assert not consumer.attached
                await self.within(consumer.settle(held, Ack()))
                await self.publish(broker, topic, "late")
                left: list[str] = []
                with suppress(Closed):
                    while True:
                        left += bodies_of(await self.within(consumer.receive(10)))
                assert left in ([], ["waiting"])
                await self.within(consumer.detach())

    @since("0.1")
    async def test_detaching_ends_a_receive(self) -> None:
        async with self.opened() as broker, self.consuming(broker, self.unique("detach")) as consumer:
            receiving = asyncio.create_task(consumer.receive(1))
            await self.stays_waiting(receiving, "nothing was published")
            await self.within(consumer.detach())
            await self.refused(receiving, Closed)

    @since("0.1")
    async def test_a_detached_consumer_leaves_the_queue_to_others(self) -> None:
        async with self.pair() as (broker, other):
            self.needs(broker, Capability.QUEUES)
            topic = self.unique("detach")
            async with (
                self.consuming(broker, topic, queue=QUEUE) as leaving,
                self.consuming(other, topic, queue=QUEUE) as staying,
            ):
                await leaving.detach()
                sent = [str(number) for number in range(10)]
                await self.publish(broker, topic, *sent)
                assert sorted(await self.take(staying, 10)) == sent

    @since("0.1")
    async def test_closing_a_consumer_ends_its_receive(self) -> None:
        async with self.opened() as broker, self.consuming(broker, self.unique("close")) as consumer:
            assert consumer.attached
            receiving = asyncio.create_task(consumer.receive(1))
            await self.stays_waiting(receiving, "nothing was published")
            await self.within(consumer.aclose())
            await self.refused(receiving, Closed)
            await self.refused(consumer.receive(1), Closed)
            assert not consumer.attached

    @since("0.1")
    async def test_a_consumer_closes_twice(self) -> None:
        async with self.opened() as broker, self.consuming(broker, self.unique("close")) as consumer:
            await self.within(asyncio.gather(consumer.aclose(), consumer.aclose()))
            await self.within(consumer.aclose())
            await self.within(consumer.detach())

    @since("0.1")
    async def test_settling_after_closing_is_harmless(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("close")
            async with self.consuming(broker, topic) as consumer:
                await self.publish(broker, topic, "one")
                (delivery,) = await self.receive(consumer, 1)
                await consumer.aclose()
                for settlement in (Ack(), Retry()):
                    with suppress(BackendUnavailable):
                        await self.within(consumer.settle(delivery, settlement))

    @since("0.1")
    async def test_what_a_closed_consumer_held_goes_to_another(self) -> None:
        async with self.pair() as (broker, other):
            self.needs(broker, Capability.REDELIVERY, Capability.QUEUES)
            topic = self.unique("close")
            async with self.consuming(broker, topic, queue=QUEUE) as first:
                await self.publish(broker, topic, "one", "two")
                await self.receive(first, 2)
                async with self.consuming(other, topic, queue=QUEUE) as second:
                    await self.nothing(second)
                    await first.aclose()
                    again = await self.receive(second, 2)
                    assert sorted(bodies_of(again)) == ["one", "two"]
                    assert [delivery.count for delivery in again] == [2, 2]
                    for delivery in again:
                        await second.settle(delivery, Ack())

    @since("0.1")
    async def test_what_a_closed_broker_held_goes_to_another(self) -> None:
        async with self.pair() as (broker, other):
            self.needs(broker, Capability.REDELIVERY, Capability.QUEUES)
            topic = self.unique("close")
            async with self.consuming(broker, topic, queue=QUEUE) as first:
                await self.publish(broker, topic, "one")
                await self.receive(first, 1)
                await self.within(broker.aclose())
                async with self.consuming(other, topic, queue=QUEUE) as second:
                    (again,) = await self.receive(second, 1)
                    assert (body_of(again), again.count) == ("one", 2)
                    await second.settle(again, Ack())

    @since("0.1")
    async def test_a_queue_keeps_messages_while_its_consumer_is_away(self) -> None:
        async with self.pair() as (broker, other):
            self.needs(broker, Capability.AT_LEAST_ONCE, Capability.QUEUES)
            topic = self.unique("away")
            async with self.consuming(other, topic, queue=QUEUE):
                pass
            await self.publish(broker, topic, "one")
            async with self.consuming(other, topic, queue=QUEUE) as consumer:
                assert await self.take(consumer, 1) == ["one"]

    # Life cycle

    @since("0.1")
    async def test_before_opening_everything_is_refused(self) -> None:
        await self.refuses_use(self.make(self.build()))

    @since("0.1")
    async def test_after_closing_everything_is_refused(self) -> None:
        async with self.opened() as broker:
            await broker.aclose()
            await broker.aclose()
            await self.refuses_use(broker)

    @since("0.1")
    async def test_closing_before_opening_is_harmless(self) -> None:
        broker = self.make(self.build())
        await broker.aclose()
        await broker.aclose()
        await self.refused(broker.__aenter__(), Closed)

    @since("0.1")
    async def test_closing_the_broker_closes_its_consumers(self) -> None:
        async with self.opened() as broker, self.consuming(broker, self.unique("close")) as consumer:
            receiving = asyncio.create_task(consumer.receive(1))
            await self.stays_waiting(receiving, "nothing was published")
            await self.within(broker.aclose())
            await self.refused(receiving, Closed)
            assert not consumer.attached

    @since("0.1")
    async def test_closing_one_instance_leaves_the_other_alone(self) -> None:
        async with self.pair() as (broker, other):
            topic = self.unique("close")
            async with self.consuming(other, topic) as consumer, self.consuming(broker, topic):
                await self.within(broker.aclose())
                assert consumer.attached
                await self.publish(other, topic, "one")
                assert await self.take(consumer, 1) == ["one"]

    # Outages

    @since("0.1")
    async def test_publishing_during_an_outage_fails_in_time(self) -> None:
        async with self.opened() as broker, self.outage(Outage.STOP) as server:
            await server.stop()
            await self.refused(self.publish_in(broker, self.patience / 4), BackendUnavailable)

    @since("0.1")
    async def test_publishing_to_a_hanging_server_fails_in_time(self) -> None:
        async with self.opened() as broker, self.outage(Outage.PAUSE) as server:
            await server.pause()
            await self.refused(self.publish_in(broker, self.patience / 20), BackendUnavailable)

    @since("0.1")
    async def test_attaching_during_an_outage_fails_in_time(self) -> None:
        async with self.opened() as broker, self.outage(Outage.STOP) as server:
            await server.stop()
            await self.refused(broker.consume(self.unique("outage")), BackendUnavailable)

    @since("0.1")
    async def test_a_consumer_attaches_again_after_an_outage(self) -> None:
        async with self.outage(Outage.STOP) as server, self.pair() as (broker, other):
            topic = self.unique("outage")
            async with self.consuming(other, topic) as consumer:
                receiving = asyncio.create_task(consumer.receive(1))
                await server.stop()
                await self.until_attached(consumer, False)
                await self.stays_waiting(receiving, "during an outage receive waits")
                await server.start()
                await self.until_attached(consumer, True)
                await self.until_published(broker, topic, "after")
                assert bodies_of(await self.within(receiving)) == ["after"]

    @since("0.1")
    async def test_what_was_taken_before_an_outage_is_delivered_after_it(self) -> None:
        async with self.outage(Outage.STOP) as server, self.pair() as (broker, other):
            self.needs(broker, Capability.AT_LEAST_ONCE, Capability.QUEUES)
            topic = self.unique("outage")
            async with self.consuming(other, topic, queue=QUEUE) as consumer:
                await self.publish(broker, topic, "held", "waiting")
                (held,) = await self.receive(consumer, 1)
                await server.stop()
                await server.start()
                arrived: set[str] = set()
                with suppress(BackendUnavailable):  # then it comes again
                    await self.within(consumer.settle(held, Ack()))
                    arrived.add(body_of(held))
                while arrived != {"held", "waiting"}:
                    arrived |= set(await self.take(consumer, 1))

    @since("0.1")
    async def test_closing_without_a_server_is_bounded(self) -> None:
        async with (
            self.opened() as broker,
            self.consuming(broker, self.unique("outage")) as consumer,
            self.outage(Outage.STOP) as server,
        ):
            await server.stop()
            await self.within(consumer.aclose())
            await self.within(broker.aclose())

    @since("0.1")
    async def test_closing_before_a_hanging_server_is_bounded(self) -> None:
        async with (
            self.opened(timeout=self.patience / 4) as broker,
            self.consuming(broker, self.unique("outage")) as consumer,
            self.outage(Outage.PAUSE) as server,
        ):
            await server.pause()
            await self.within(consumer.aclose())
            await self.within(broker.aclose())

    @since("0.1")
    async def test_garbled_bytes_are_survived(self) -> None:
        if self.server is None or not self.garbled:
            pytest.skip("it is not declared which bytes a network may change")
        async with no_leaks(grace=self.patience), FaultProxy(self.server.address) as proxy:
            build = self.build(addresses=(proxy.address,))
            topic = self.unique("garbled")
            async with self.make(build) as broker, self.consuming(broker, topic) as consumer:
                number = 0
                for after, to_client in product(self.garbled, (True, False)):
                    proxy.garble(after=after, size=3, to_client=to_client)
                    number, altered = await self.within(self.survive(broker, consumer, topic, number))
                    assert altered <= self.altered, f"messages that nobody sent, after byte {after}"

    # Helpers

    async def survive(self, broker: Broker, consumer: Consumer, topic: str, number: int) -> tuple[int, int]:
        """Publish until the third message or a later one arrives; the next number, and how many nobody sent."""
        first, altered = number, 0
        while True:
            number += 1
            with suppress(ConnectionFailed):
                await broker.publish(topic, text(_long(number)), timeout=self.patience / 5)
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * self.quiet):
                    for delivery in await consumer.receive(10):
                        with suppress(ConnectionFailed):
                            await consumer.settle(delivery, Ack())
                        body = delivery.message.body
                        if body not in {_long(sent).encode() for sent in range(number + 1)}:
                            altered += 1
                        elif int(body.split()[0]) > first + 2:
                            return number, altered

    async def publish_in(self, broker: Broker, timeout: float) -> None:
        """Publish something with a time-out."""
        await broker.publish(self.unique("outage"), text("one"), timeout=timeout)

    async def until_published(self, broker: Broker, topic: str, body: str) -> None:
        """Publish as soon as the broker takes it."""

        async def published() -> bool:
            with suppress(BackendUnavailable):
                await broker.publish(topic, text(body), timeout=self.patience)
                return True
            return False

        await self.eventually(published, "the broker takes messages again")

    async def refuses_use(self, broker: Broker) -> None:
        """Every method of a broker that is not open raises `Closed`."""
        await self.refused(broker.publish("topic", text("late"), timeout=self.patience), Closed)
        await self.refused(broker.consume("topic"), Closed)


def _long(number: int) -> str:
    """Longer than what goes by before bytes are changed, so that the first message uses all of that up."""
    return f"{number} {'x' * 500}"
