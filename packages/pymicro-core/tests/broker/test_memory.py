from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pymicro import errors
from pymicro.broker import Ack, Consumer, Delivery, MemoryBroker, MemoryBrokerOptions, MemoryTopics, Reject, Retry
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build, Limits
from pymicro_testing import ManualClock, settle


async def publish(broker: MemoryBroker, *bodies: bytes, topic: str = "t", key: str | None = None) -> None:
    for body in bodies:
        await broker.publish(topic, Message(body=body), key=key, timeout=1.0)


async def bodies(consumer: Consumer, number: int) -> list[bytes]:
    """The bodies of the next deliveries, each acknowledged."""
    found: list[bytes] = []
    while len(found) < number:
        for delivery in await consumer.receive(number - len(found)):
            found.append(delivery.message.body)
            await consumer.settle(delivery, Ack())
    return found


async def one(consumer: Consumer) -> Delivery[Any]:
    (delivery,) = await consumer.receive(1)
    return delivery


async def blocked(consumer: Consumer) -> bool:
    """Whether the consumer has nothing to hand out now."""
    task = asyncio.ensure_future(consumer.receive(1))
    await settle()
    done = task.done()
    task.cancel()
    await asyncio.wait([task])
    return not done


async def test_consumers_without_a_queue_get_every_message_in_order(broker: MemoryBroker) -> None:
    first, second = await broker.consume("t"), await broker.consume("t")
    await publish(broker, b"1", b"2", b"3")
    assert await bodies(first, 3) == [b"1", b"2", b"3"]
    assert await bodies(second, 3) == [b"1", b"2", b"3"]


async def test_consumers_of_one_queue_share_its_messages(broker: MemoryBroker) -> None:
    first, second = await broker.consume("t", queue="q"), await broker.consume("t", queue="q")
    other = await broker.consume("t", queue="other")
    waiting = [asyncio.ensure_future(consumer.receive(10)) for consumer in (first, second)]
    await settle()
    await publish(broker, b"1", b"2", b"3", b"4")
    shares = [[delivery.message.body for delivery in await task] for task in waiting]
    assert all(shares)
    assert sorted(body for share in shares for body in share) == [b"1", b"2", b"3", b"4"]
    assert await bodies(other, 4) == [b"1", b"2", b"3", b"4"]


async def test_idle_consumers_of_a_queue_take_turns(broker: MemoryBroker) -> None:
    consumers = [await broker.consume("t", queue="q") for _ in range(2)]
    got: list[int] = []

    async def consume(number: int) -> None:
        while True:
            await consumers[number].settle(await one(consumers[number]), Ack())
            got.append(number)

    tasks = [asyncio.ensure_future(consume(number)) for number in range(2)]
    for _ in range(4):
        await settle()
        await publish(broker, b"x")
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert got == [0, 1, 0, 1]


async def test_a_delivery_carries_what_was_published(broker: MemoryBroker) -> None:
    consumer = await broker.consume("grüße/été")
    message = Message(Headers({"Content-Type": "text/plain", "X-Ünicode": "ä"}), b"\x00\xff")
    await broker.publish("grüße/été", message, key="k", timeout=1.0)
    delivery = await one(consumer)
    assert (delivery.topic, delivery.key, delivery.count) == ("grüße/été", "k", 1)
    assert dict(delivery.message.headers) == {"Content-Type": "text/plain", "X-Ünicode": "ä"}
    assert delivery.message.body == b"\x00\xff"


async def test_no_object_is_shared_between_publisher_and_consumers(broker: MemoryBroker) -> None:
    first, second = await broker.consume("t"), await broker.consume("t")
    body, headers = bytearray(b"before"), Headers({"A": "1"})
    await broker.publish("t", Message(headers, body), timeout=1.0)  # type: ignore[arg-type]  # a careless caller
    body[:] = b"after!"
    one_, other = await one(first), await one(second)
    assert one_.message.body == other.message.body == b"before"
    assert isinstance(one_.message.body, bytes)
    assert len({id(h) for h in (headers, one_.message.headers, other.message.headers)}) == 3


async def test_a_topic_that_nobody_consumes_keeps_nothing(broker: MemoryBroker) -> None:
    await publish(broker, b"gone")
    consumer = await broker.consume("t", queue="q")
    await publish(broker, b"kept")
    assert await bodies(consumer, 1) == [b"kept"]


async def test_a_queue_keeps_messages_while_its_consumers_are_away(broker: MemoryBroker) -> None:
    await (await broker.consume("t", queue="q")).aclose()
    await publish(broker, b"1", b"2")
    assert await bodies(await broker.consume("t", queue="q"), 2) == [b"1", b"2"]


async def test_never_more_than_prefetch_are_unsettled(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t", prefetch=2)
    await publish(broker, b"1", b"2", b"3")
    first, second = await consumer.receive(10)
    assert await blocked(consumer)
    await consumer.settle(second, Ack())
    assert (await one(consumer)).message.body == b"3"
    await consumer.settle(first, Ack())


async def test_settling_wakes_a_receive_that_waits_for_prefetch(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t", prefetch=1)
    await publish(broker, b"1", b"2")
    first = await one(consumer)
    waiting = asyncio.ensure_future(one(consumer))
    await settle()
    assert not waiting.done()
    await consumer.settle(first, Ack())
    assert (await waiting).message.body == b"2"


async def test_retry_delivers_again_with_a_higher_count_before_later_messages(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t", queue="q")
    await publish(broker, b"1", b"2")
    await consumer.settle(await one(consumer), Retry())
    again = await one(consumer)
    assert (again.message.body, again.count) == (b"1", 2)


async def test_retry_waits_for_its_delay(broker: MemoryBroker, clock: ManualClock) -> None:
    consumer = await broker.consume("t")
    await publish(broker, b"1")
    await consumer.settle(await one(consumer), Retry(delay=30.0))
    waiting = asyncio.ensure_future(one(consumer))
    await clock.advance(29.9)
    assert not waiting.done()
    await clock.advance(0.1)
    assert (await waiting).count == 2


async def test_a_delayed_message_does_not_hold_up_later_ones(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t")
    await publish(broker, b"1", b"2")
    await consumer.settle(await one(consumer), Retry(delay=30.0))
    assert (await one(consumer)).message.body == b"2"


async def test_a_consumer_that_began_to_wait_before_the_retry_gets_it(broker: MemoryBroker, clock: ManualClock) -> None:
    first, second = await broker.consume("t", queue="q"), await broker.consume("t", queue="q")
    await publish(broker, b"1")
    delivery = await one(first)
    waiting = asyncio.ensure_future(one(second))
    await settle()
    await first.settle(delivery, Retry(delay=5.0))
    await clock.advance(5.0)
    assert (await waiting).count == 2


@pytest.mark.parametrize("settlement", [Ack(), Reject("no good")])
async def test_settled_for_good_is_not_delivered_again(broker: MemoryBroker, settlement: Ack | Reject) -> None:
    consumer = await broker.consume("t", queue="q")
    await publish(broker, b"1")
    await consumer.settle(await one(consumer), settlement)
    await consumer.aclose()
    assert await blocked(await broker.consume("t", queue="q"))


async def test_a_second_settlement_has_no_effect(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t")
    await publish(broker, b"1")
    delivery = await one(consumer)
    await consumer.settle(delivery, Ack())
    await consumer.settle(delivery, Retry())
    assert await blocked(consumer)


async def test_unsettled_deliveries_of_a_closed_consumer_come_again_in_order(broker: MemoryBroker) -> None:
    lost, other = await broker.consume("t", queue="q"), await broker.consume("t", queue="q")
    await publish(broker, b"1", b"2", b"3")
    first, _second = await lost.receive(2)
    await lost.aclose()
    with pytest.raises(errors.BackendUnavailable):
        await lost.settle(first, Ack())
    seen = [await one(other) for _ in range(3)]
    assert [(delivery.message.body, delivery.count) for delivery in seen] == [(b"1", 2), (b"2", 2), (b"3", 1)]


async def test_cancelled_receive_loses_nothing(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t")
    waiting = asyncio.ensure_future(consumer.receive(1))
    await settle()
    await publish(broker, b"1")
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert await bodies(consumer, 1) == [b"1"]


async def test_a_detached_consumer_of_a_queue_leaves_the_messages_to_others(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t", queue="q")
    await publish(broker, b"1", b"2")
    held = await one(consumer)
    await consumer.detach()
    await consumer.detach()
    assert not consumer.attached
    with pytest.raises(errors.Closed):
        await consumer.receive(1)
    await consumer.settle(held, Ack())
    assert await bodies(await broker.consume("t", queue="q"), 1) == [b"2"]


async def test_a_detached_consumer_without_queue_hands_out_what_it_has(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t", prefetch=1)
    await publish(broker, b"1", b"2")
    await consumer.detach()
    await publish(broker, b"3")
    assert await bodies(consumer, 2) == [b"1", b"2"]
    with pytest.raises(errors.Closed):
        await consumer.receive(1)


async def test_detaching_and_closing_end_a_waiting_receive(broker: MemoryBroker) -> None:
    for end in (Consumer.detach, Consumer.aclose):
        consumer = await broker.consume("t")
        waiting = asyncio.ensure_future(consumer.receive(1))
        await settle()
        await getattr(consumer, end.__name__)()
        with pytest.raises(errors.Closed):
            await waiting
        await consumer.aclose()


async def test_a_full_queue_makes_publishers_wait_first_come_first_served(clock: ManualClock) -> None:
    async with MemoryBroker(MemoryBrokerOptions(max_messages=2), Build(clock=clock)) as broker:
        consumer = await broker.consume("t", queue="q")
        await publish(broker, b"1", b"2")
        waiting = [asyncio.ensure_future(publish(broker, body)) for body in (b"3", b"4")]
        await settle()
        delivery = await one(consumer)
        await settle()
        assert not any(task.done() for task in waiting), "a delivery counts until it is settled"
        await consumer.settle(delivery, Ack())
        await settle()
        assert [task.done() for task in waiting] == [True, False]
        assert await bodies(consumer, 3) == [b"2", b"3", b"4"]
        await asyncio.gather(*waiting)


async def test_a_publisher_that_finds_no_room_in_time_is_told(clock: ManualClock) -> None:
    async with MemoryBroker(MemoryBrokerOptions(max_bytes=10), Build(clock=clock)) as broker:
        consumer = await broker.consume("t", queue="q")
        await publish(broker, b"12345678")
        refused = asyncio.ensure_future(publish(broker, b"abc"))
        behind = asyncio.ensure_future(broker.publish("t", Message(body=b"z"), timeout=60.0))
        await clock.advance(1.0)
        with pytest.raises(errors.BackendUnavailable, match="no room"):
            await refused
        await behind
        assert await bodies(consumer, 2) == [b"12345678", b"z"]
        assert clock.pending == 0


async def test_a_cancelled_publisher_gives_way(clock: ManualClock) -> None:
    async with MemoryBroker(MemoryBrokerOptions(max_messages=1), Build(clock=clock)) as broker:
        consumer = await broker.consume("t", queue="q")
        await publish(broker, b"1")
        given_up, patient = (asyncio.ensure_future(publish(broker, body)) for body in (b"2", b"3"))
        await settle()
        given_up.cancel()
        assert await bodies(consumer, 2) == [b"1", b"3"]
        await patient


async def test_a_message_larger_than_the_queue_passes_when_it_is_empty(clock: ManualClock) -> None:
    async with MemoryBroker(MemoryBrokerOptions(max_bytes=1), Build(clock=clock)) as broker:
        consumer = await broker.consume("t")
        await publish(broker, b"large")
        assert await bodies(consumer, 1) == [b"large"]


async def test_a_consumer_that_leaves_frees_its_publishers(clock: ManualClock) -> None:
    async with MemoryBroker(MemoryBrokerOptions(max_messages=1), Build(clock=clock)) as broker:
        consumer = await broker.consume("t")
        await publish(broker, b"1")
        waiting = asyncio.ensure_future(publish(broker, b"2"))
        await settle()
        assert not waiting.done()
        await consumer.aclose()
        await waiting


async def test_closing_refuses_waiting_publishers(clock: ManualClock) -> None:
    broker = MemoryBroker(MemoryBrokerOptions(max_messages=1), Build(clock=clock))
    async with broker:
        await broker.consume("t", queue="q")
        await publish(broker, b"1")
        waiting = asyncio.ensure_future(publish(broker, b"2"))
        await settle()
    with pytest.raises(errors.BackendUnavailable):
        await waiting


@pytest.mark.parametrize("message", [Message(body=b"12345"), Message(Headers({"name": "value"}))])
async def test_a_message_over_the_limits_is_refused(message: Message) -> None:
    async with MemoryBroker(build=Build(limits=Limits(message=4, headers=8))) as broker:
        with pytest.raises(errors.TooLarge):
            await broker.publish("t", message, timeout=1.0)


async def test_brokers_share_topics_only_when_they_are_told_to() -> None:
    topics = MemoryTopics()
    async with MemoryBroker(topics=topics) as first, MemoryBroker(topics=topics) as second, MemoryBroker() as apart:
        consumer = await second.consume("t")
        await publish(apart, b"apart")
        await publish(first, b"shared")
        assert await bodies(consumer, 1) == [b"shared"]


async def test_a_queue_of_shared_topics_outlives_the_broker() -> None:
    topics = MemoryTopics()
    async with MemoryBroker(topics=topics) as broker:
        consumer = await broker.consume("t", queue="q")
        await publish(broker, b"1", b"2")
        await one(consumer)
    async with MemoryBroker(topics=topics) as broker:
        first, second = [await one(consumer) for consumer in [await broker.consume("t", queue="q")] * 2]
        assert [(first.message.body, first.count), (second.message.body, second.count)] == [(b"1", 2), (b"2", 1)]


async def test_misuse_is_told(broker: MemoryBroker) -> None:
    with pytest.raises(errors.InvalidOption):
        await broker.consume("t", native=object())
    with pytest.raises(errors.InvalidOption):
        await broker.consume("t", prefetch=0)
    await broker.aclose()
    with pytest.raises(errors.Closed):
        await publish(broker, b"1")
    with pytest.raises(errors.Closed):
        await broker.consume("t")


async def test_a_closed_broker_closes_its_consumers(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t")
    assert consumer.attached
    await broker.aclose()
    assert not consumer.attached
    with pytest.raises(errors.Closed):
        await consumer.receive(1)


async def test_a_delivery_of_a_consumer_cannot_settle_itself(broker: MemoryBroker) -> None:
    consumer = await broker.consume("t")
    await publish(broker, b"1")
    delivery = await one(consumer)
    for method in (delivery.ack, delivery.retry, delivery.reject, delivery.extend):
        with pytest.raises(errors.UsageError):
            await method()
    with pytest.raises(errors.UsageError, match="not decoded"):
        _ = delivery.value
    assert not delivery.settled
    delivery.value = 3
    assert delivery.value == 3
