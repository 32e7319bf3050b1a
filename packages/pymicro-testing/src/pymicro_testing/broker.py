"""What every broker must do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from pymicro.broker import Ack, Broker, Capability, Reject, Retry, Settlement
from pymicro.errors import BackendRefused, ConfigurationError, InvalidOption, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro_testing._broker_base import QUEUE, bodies_of, body_of
from pymicro_testing._broker_life import BrokerLife
from pymicro_testing._guard import since
from pymicro_testing.clock import ManualClock

_BODIES: Final = (
    b"",
    b"\0",
    bytes(range(256)),
    "Grüße, 日本 ✓".encode(),
    b"\r\n\r\n",
    b'{"json": true}',
    b"x" * 100_000,
)
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Micro-Topic": "events",
    "X-Empty": "",
    "X-Punctuation": "a=b; c, d: \"e\" 'f' \\ / ? # % + ~",
    "X-Non-Ascii": "Grüße 日本 ✓ 🙂",
    "x-lower": "lower",
    "X-Long": "v" * 2048,
}


class BrokerConformance(BrokerLife):
    """The cases for brokers.

    Define `make`. Cases that need a capability which the broker does not declare are skipped. Attributes beyond those
    of `Conformance`:
        topics: endings of topic names that are not plain; each must work or be refused with `BackendRefused` or
            `ConfigurationError`.
        delay: seconds of the delay in the case about delayed retries.
        spread: how many messages a queue must get until each of its two idle consumers surely has one. More than two
            are for backends that choose a consumer by chance, without knowing who is idle.
        garbled: before which bytes of each direction the network changes some, in the case about that; empty skips it.
            It needs `server.address`, and a `make` that heeds `build.addresses`.
        altered: how many messages the broker may then deliver that nobody sent, each time; 0 if it would notice.
    """

    topics: ClassVar[Sequence[str]] = (
        ".a.b", ".*", ".>", "/a/b", "/#", "/+", " space", "_under-dash", "Größe", "日本", ":colon", "%41", "x" * 60,
    )  # fmt: skip
    delay: ClassVar[float] = 0.3
    spread: ClassVar[int] = 2

    def asking_for_kept(self, topic: str) -> tuple[str, Any]:
        """The queue and `native` options of a subscription that gets what was published with `keep`.

        Brokers that declare `AT_LEAST_ONCE` define it.
        """
        raise NotImplementedError(f"{type(self).__name__}.asking_for_kept")

    # What is delivered

    @since("0.1")
    async def test_nobody_needs_to_be_subscribed(self) -> None:
        async with self.opened() as broker:
            await self.publish(broker, self.unique("nobody"), "one", "two")

    @since("0.1")
    async def test_what_is_to_be_kept_waits_for_who_asks_for_it(self) -> None:
        async with self.pair() as (broker, other):
            self.needs(broker, Capability.AT_LEAST_ONCE)
            topic = self.unique("kept")
            await self.publish(broker, topic, "one", "two", keep=True)
            queue, native = self.asking_for_kept(topic)
            async with self.consuming(other, topic, queue=queue, native=native) as consumer:
                assert sorted(await self.take(consumer, 2)) == ["one", "two"]
                await self.publish(broker, topic, "three", keep=True)
                assert await self.take(consumer, 1) == ["three"]

    @since("0.1")
    async def test_what_one_publishes_the_other_receives(self) -> None:
        async with self.pair() as (broker, other):
            topic = self.unique("events")
            async with self.consuming(other, topic) as consumer:
                assert consumer.attached
                await self.publish(broker, topic, "one")
                (delivery,) = await self.receive(consumer, 1)
                assert (delivery.topic, body_of(delivery), delivery.key, delivery.count) == (topic, "one", None, 1)
                await consumer.settle(delivery, Ack())

    @since("0.1")
    async def test_consumers_without_a_queue_get_everything_once(self) -> None:
        async with self.pair() as (broker, other):
            topic = self.unique("fanout")
            sent = [str(number) for number in range(20)]
            async with (
                self.consuming(broker, topic) as first,
                self.consuming(other, topic) as second,
                self.consuming(other, topic) as third,
            ):
                await self.publish(broker, topic, *sent[:10])
                await self.publish(other, topic, *sent[10:])
                for consumer in (first, second, third):
                    assert sorted(await self.take(consumer, 20)) == sorted(sent)
                await self.nothing(first, second, third)

    @since("0.1")
    async def test_topics_are_kept_apart(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("one")
            async with self.consuming(broker, topic) as consumer, self.consuming(broker, f"{topic}.sub") as sub:
                await self.publish(broker, f"{topic}.sub", "for the other")
                await self.publish(broker, topic[:-1], "for nobody")
                assert await self.take(sub, 1) == ["for the other"]
                await self.nothing(consumer, sub)

    @since("0.1")
    async def test_any_body_arrives_as_it_is(self) -> None:
        async with self.pair() as (broker, other):
            topic = self.unique("bodies")
            async with self.consuming(other, topic) as consumer:
                for body in (*_BODIES, b"\xff" * self.limits.message):
                    await self.within(broker.publish(topic, Message(Headers(), body), timeout=self.patience))
                    (delivery,) = await self.receive(consumer, 1)
                    assert delivery.message.body == body
                    await consumer.settle(delivery, Ack())

    @since("0.1")
    async def test_headers_arrive_as_they_are(self) -> None:
        async with self.pair() as (broker, other):
            topic = self.unique("headers")
            async with self.consuming(other, topic) as consumer:
                await self.within(broker.publish(topic, Message(Headers(_HEADERS), b"{}"), timeout=self.patience))
                (delivery,) = await self.receive(consumer, 1)
                headers = delivery.message.headers
                assert {name: headers.get(name) for name in _HEADERS} == _HEADERS
                assert headers.get("X-LOWER") == "lower"

    @since("0.1")
    async def test_a_message_over_the_limit_is_refused(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("large")
            async with self.consuming(broker, topic) as consumer:
                large = Message(Headers(), b"x" * (self.limits.message + 1))
                await self.refused(broker.publish(topic, large, timeout=self.patience), TooLarge)
                await self.publish(broker, topic, "small")
                assert await self.take(consumer, 1) == ["small"]

    @since("0.1")
    async def test_keys_are_kept(self) -> None:
        async with self.pair() as (broker, other):
            topic = self.unique("keys")
            async with self.consuming(other, topic) as consumer:
                for key in (None, "customer-1", "Größe 日本"):
                    await self.publish(broker, topic, str(key), key=key)
                    (delivery,) = await self.receive(consumer, 1)
                    assert (body_of(delivery), delivery.key) == (str(key), key)
                    await consumer.settle(delivery, Ack())

    @since("0.1")
    async def test_awkward_topics_work_or_are_refused(self) -> None:
        async with self.pair() as (broker, other):
            plain = self.unique("topic")
            async with self.consuming(other, plain) as bystander, self.consuming(other, f"{plain}.a.b") as deeper:
                for topic in (f"{plain}{ending}" for ending in self.topics if ending != ".a.b"):
                    try:
                        async with self.consuming(other, topic) as consumer:
                            await self.publish(broker, topic, "1")
                            await self.publish(broker, f"{plain}.a.b", "for the other")
                            await self.publish(broker, topic, "2")
                            assert sorted(await self.take(consumer, 2)) == ["1", "2"], f"{topic} matched another topic"
                            assert await self.take(deeper, 1) == ["for the other"]
                    except (BackendRefused, ConfigurationError):
                        continue
                await self.nothing(bystander, deeper)

    @since("0.1")
    async def test_order_holds_within_a_key(self) -> None:
        async with self.pair() as (broker, other):
            self.needs(broker, Capability.ORDERED)
            topic = self.unique("order")
            async with self.consuming(other, topic) as consumer:
                publishing = asyncio.create_task(self.publish_numbers(broker, topic, 1000))
                arrived: dict[str | None, list[int]] = {"even": [], "odd": []}
                while sum(map(len, arrived.values())) < 1000:
                    for delivery in await self.within(consumer.receive(10)):
                        arrived[delivery.key].append(int(body_of(delivery)))
                        await consumer.settle(delivery, Ack())
                await self.within(publishing)
                assert arrived == {"even": list(range(0, 1000, 2)), "odd": list(range(1, 1000, 2))}

    @since("0.1")
    async def test_many_may_publish_at_once(self) -> None:
        async with self.pair() as (broker, other):
            topic = self.unique("many")
            sent = [str(number) for number in range(100)]
            async with self.consuming(other, topic, prefetch=100) as consumer:
                await asyncio.gather(*(self.publish(broker, topic, body) for body in sent))
                assert sorted(await self.take(consumer, 100), key=int) == sent
                await self.nothing(consumer)

    @since("0.1")
    async def test_options_of_another_plugin_are_refused(self) -> None:
        async with self.opened() as broker:
            await self.refused(broker.consume(self.unique("native"), native=object()), InvalidOption)

    # Queues and prefetch

    @since("0.1")
    async def test_consumers_of_a_queue_share_its_messages(self) -> None:
        async with self.pair() as (broker, other):
            self.needs(broker, Capability.QUEUES)
            topic = self.unique("queue")
            async with (
                self.consuming(broker, topic, queue=QUEUE, prefetch=1) as first,
                self.consuming(other, topic, queue=QUEUE, prefetch=1) as second,
            ):
                sent = [str(number) for number in range(self.spread)]
                await self.publish(broker, topic, *sent)
                deliveries = await asyncio.gather(self.receive(first, 1), self.receive(second, 1))
                arrived = [body_of(delivery) for (delivery,) in deliveries]
                for consumer, (delivery,) in zip((first, second), deliveries, strict=True):
                    await consumer.settle(delivery, Ack())
                await self.take_together(arrived, len(sent), first, second)
                assert sorted(arrived, key=int) == sent
                await self.nothing(first, second)

    @since("0.1")
    async def test_each_queue_gets_everything(self) -> None:
        async with self.pair() as (broker, other):
            self.needs(broker, Capability.QUEUES)
            topic = self.unique("queues")
            async with (
                self.consuming(broker, topic, queue="one") as one,
                self.consuming(other, topic, queue="two") as two,
                self.consuming(other, topic) as private,
            ):
                await self.publish(broker, topic, "a", "b", "c")
                for consumer in (one, two, private):
                    assert sorted(await self.take(consumer, 3)) == ["a", "b", "c"]
                await self.nothing(one, two, private)

    @since("0.1")
    async def test_no_more_than_prefetch_are_unsettled(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("prefetch")
            async with self.consuming(broker, topic, prefetch=3) as consumer:
                await self.publish(broker, topic, *"abcdefghij")
                held = await self.receive(consumer, 3)
                await self.nothing(consumer)
                await consumer.settle(held[0], Ack())
                (fourth,) = await self.receive(consumer, 1)
                await self.nothing(consumer)
                for delivery in (*held[1:], fourth):
                    await consumer.settle(delivery, Ack())
                arrived = [*bodies_of([*held, fourth]), *await self.take(consumer, 6)]
                assert sorted(arrived) == list("abcdefghij")

    @since("0.1")
    async def test_receive_gives_no_more_than_it_was_asked_for(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("max")
            async with self.consuming(broker, topic) as consumer:
                await self.publish(broker, topic, *"abcdef")
                for most in (1, 2, 3):
                    assert 1 <= len(await self.within(consumer.receive(most))) <= most

    @since("0.1")
    async def test_one_that_holds_its_messages_stops_nobody_else(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("slow")
            async with self.consuming(broker, topic, prefetch=1) as slow, self.consuming(broker, topic) as quick:
                sent = [str(number) for number in range(50)]
                await self.publish(broker, topic, *sent)
                await self.receive(slow, 1)
                assert sorted(await self.take(quick, 50), key=int) == sent

    # Settlement

    @since("0.1")
    async def test_an_acknowledged_message_is_done(self) -> None:
        await self.stays_settled(Ack())

    @since("0.1")
    async def test_a_rejected_message_is_done(self) -> None:
        await self.stays_settled(Reject("nobody could handle it"))

    @since("0.1")
    async def test_a_retried_message_comes_again_and_is_counted(self) -> None:
        async with self.opened() as broker:
            self.needs(broker, Capability.REDELIVERY)
            topic = self.unique("retry")
            async with self.consuming(broker, topic) as consumer:
                await self.publish(broker, topic, "poison", key="k")
                for count in range(1, 6):
                    (delivery,) = await self.receive(consumer, 1)
                    assert (body_of(delivery), delivery.count, delivery.key) == ("poison", count, "k")
                    assert delivery.message.headers["Content-Type"] == "text/plain"
                    await self.within(consumer.settle(delivery, Retry()))
                (delivery,) = await self.receive(consumer, 1)
                await consumer.settle(delivery, Ack())
                await self.nothing(consumer)

    @since("0.1")
    async def test_the_count_survives_the_consumer(self) -> None:
        async with self.opened() as broker:
            self.needs(broker, Capability.REDELIVERY, Capability.QUEUES)
            topic = self.unique("count")
            # The first one keeps the queue alive and can take no more than the message it holds.
            async with self.consuming(broker, topic, queue=QUEUE, prefetch=1) as keeper:
                await self.publish(broker, topic, "held")
                await self.receive(keeper, 1)
                await self.publish(broker, topic, "poison")
                for count in range(1, 4):
                    async with self.consuming(broker, topic, queue=QUEUE) as consumer:
                        (delivery,) = await self.receive(consumer, 1)
                        assert (body_of(delivery), delivery.count) == ("poison", count)
                        # Before it could be handed to this one again: that counts too where brokers push.
                        await self.within(consumer.detach())
                        await self.within(consumer.settle(delivery, Retry()))

    @since("0.1")
    async def test_a_second_settlement_has_no_effect(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("twice")
            async with self.consuming(broker, topic) as consumer:
                await self.publish(broker, topic, "one")
                (delivery,) = await self.receive(consumer, 1)
                for settlement in (Ack(), Retry(), Reject(), Ack()):
                    await self.within(consumer.settle(delivery, settlement))
                await self.nothing(consumer)

    @since("0.1")
    async def test_a_message_retried_twice_comes_once(self) -> None:
        async with self.opened() as broker:
            self.needs(broker, Capability.REDELIVERY)
            topic = self.unique("twice")
            async with self.consuming(broker, topic) as consumer:
                await self.publish(broker, topic, "one")
                (delivery,) = await self.receive(consumer, 1)
                for settlement in (Retry(), Ack(), Retry()):
                    await self.within(consumer.settle(delivery, settlement))
                (again,) = await self.receive(consumer, 1)
                assert again.count == 2
                await consumer.settle(again, Ack())
                await self.nothing(consumer)

    @since("0.1")
    async def test_a_retry_waits_for_its_delay_and_holds_up_nobody(self) -> None:
        async with self.opened() as broker:
            self.needs(broker, Capability.REDELIVERY, Capability.DELAY)
            topic = self.unique("delay")
            async with self.consuming(broker, topic) as consumer:
                await self.publish(broker, topic, "one", "two")
                first, second = await self.receive(consumer, 2)
                started = self.clock.monotonic()
                await self.within(consumer.settle(first, Retry(self.delay)))
                await consumer.settle(second, Ack())
                await self.publish(broker, topic, "three")
                assert await self.take(consumer, 1) == ["three"]
                receiving = asyncio.create_task(self.receive(consumer, 1))
                if isinstance(self.clock, ManualClock):
                    await self.stays_waiting(receiving, "the delay has not passed")
                await self.pass_time(self.delay)
                (again,) = await self.within(receiving)
                assert self.clock.monotonic() - started >= 0.9 * self.delay, "it came too early"
                assert (body_of(again), again.count) == ("one", 2)
                await consumer.settle(again, Ack())

    @since("0.1")
    async def test_extending_is_harmless(self) -> None:
        async with self.opened() as broker:
            topic = self.unique("extend")
            async with self.consuming(broker, topic) as consumer:
                await self.publish(broker, topic, "one")
                (delivery,) = await self.receive(consumer, 1)
                await self.within(consumer.extend(delivery))
                await self.nothing(consumer)
                await self.within(consumer.settle(delivery, Ack()))
                await self.nothing(consumer)

    # Helpers

    async def publish_numbers(self, broker: Broker, topic: str, count: int) -> None:
        """Publish numbers, the even ones with one key and the odd ones with another."""
        for number in range(count):
            await self.publish(broker, topic, str(number), key="odd" if number % 2 else "even")

    async def stays_settled(self, settlement: Settlement) -> None:
        """Fail if a message comes again after this settlement, to its consumer or to the queue's next one."""
        async with self.opened() as broker:
            topic = self.unique("settled")
            queue = QUEUE if Capability.QUEUES in broker.capabilities else ""
            async with self.consuming(broker, topic, queue=queue) as consumer:
                await self.publish(broker, topic, "one")
                (delivery,) = await self.receive(consumer, 1)
                await self.within(consumer.settle(delivery, settlement))
                await self.nothing(consumer)
            async with self.consuming(broker, topic, queue=queue) as consumer:
                await self.nothing(consumer)
