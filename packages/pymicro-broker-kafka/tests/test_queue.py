"""Queues as consumer groups: counting through crashes, rebalances, what is committed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from pymicro.broker import Ack, Consumer, Delivery, Dispatcher, Retry, RetryPolicy
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro_broker_kafka import KafkaSubscription

PATIENCE = 20.0


async def publish(broker: Any, topic: str, *bodies: bytes, key: str | None = None) -> None:
    for body in bodies:
        await broker.publish(topic, Message(body=body), key=key, timeout=PATIENCE)


async def receive(consumer: Consumer, count: int = 1) -> list[Delivery[Any]]:
    found: list[Delivery[Any]] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += await consumer.receive(count - len(found))
    return found


def bodies(deliveries: list[Delivery[Any]]) -> list[bytes]:
    return [bytes(delivery.message.body) for delivery in deliveries]


async def crash(consumer: Any) -> None:
    """End as a process that is killed: nothing more is committed, and nobody is told."""
    consumer._committer.cancel()
    polled = consumer._polled
    polled._leave = lambda: polled._net._made.close()
    polled.stop()
    async with asyncio.timeout(PATIENCE):
        await consumer._ended.wait()


async def test_what_was_settled_out_of_order_is_not_repeated_and_the_rest_is(open_broker: Any, topic: str) -> None:
    broker, other = await open_broker(), await open_broker()
    consumer = await broker.consume(topic, queue=topic)
    await publish(broker, topic, b"0", b"1", b"2", b"3", key="one")
    held = await receive(consumer, 4)
    for delivery in (held[3], held[1]):
        await consumer.settle(delivery, Ack())
    await crash(consumer)
    again = await receive(await other.consume(topic, queue=topic), 2)
    assert bodies(again) == [b"0", b"2"]
    assert [delivery.count for delivery in again] == [2, 2]


async def test_a_poison_message_is_delivered_so_often_though_workers_crash(open_broker: Any, topic: str) -> None:
    broker = await open_broker()
    dead = await broker.consume(f"{topic}.dead")
    first = await broker.consume(topic, queue=topic)
    await broker.publish(topic, Message(Headers({"X-Trace": "abc"}), b"poison"), key="k", timeout=PATIENCE)
    (delivery,) = await receive(first)
    await first.settle(delivery, Retry())
    (delivery,) = await receive(first)
    assert delivery.count == 2
    await crash(first)
    counts: list[int] = []

    async def fail(delivery: Delivery[Any]) -> None:
        counts.append(delivery.count)
        raise RuntimeError("no")

    other = await open_broker()
    async with Dispatcher(other, topic, fail, queue=topic, retry=RetryPolicy(max_deliveries=4, delay=0.05)):
        (letter,) = await receive(dead)
    assert counts == [3, 4]
    assert (letter.message.body, letter.key, letter.message.headers["X-Trace"]) == (b"poison", "k", "abc")
    assert letter.message.headers["Micro-Dead-Reason"] == "RuntimeError: no"


async def test_rebalances_under_load_lose_and_repeat_nothing(open_broker: Any, topic: str) -> None:
    options = {"partitions": 4}
    broker = await open_broker(options, timeout=PATIENCE)
    handled: Counter[str] = Counter()
    more, enough = asyncio.Event(), asyncio.Event()
    last: dict[str, int] = {}
    in_order: list[bool] = []

    async def handle(delivery: Delivery[Any]) -> None:
        key, _, number = delivery.message.body.decode().partition("-")
        await asyncio.sleep(0.001)
        in_order.append(last.get(key, -1) < int(number))
        last[key] = int(number)
        handled[f"{key}-{number}"] += 1
        more.set()
        if len(handled) == 800:
            enough.set()

    async def produce(key: str) -> None:
        for number in range(100):
            await publish(broker, topic, f"{key}-{number}".encode(), key=key)

    async with Dispatcher(broker, topic, handle, queue=topic), asyncio.timeout(2 * PATIENCE):
        async with asyncio.TaskGroup() as producing:
            for key in "abcdefgh":
                producing.create_task(produce(key))
            for _ in range(2):
                other = Dispatcher(await open_broker(options, timeout=PATIENCE), topic, handle, queue=topic)
                async with other:
                    goal = min(len(handled) + 100, 790)
                    while len(handled) < goal:
                        more.clear()
                        await more.wait()
                    await other.drain(PATIENCE)
        await enough.wait()
    assert set(handled.values()) == {1}
    assert all(in_order)


async def test_a_busy_partition_stays_and_others_move_at_once(open_broker: Any, topic: str) -> None:
    broker, other = await open_broker(), await open_broker()
    first = await broker.consume(topic, queue=topic)
    await publish(broker, topic, b"one", b"two")
    held = await receive(first, 2)
    second = await other.consume(topic, queue=topic)
    await first.settle(held[0], Ack())  # its partition goes to the other one, as soon as this is committed
    await first.settle(held[1], Ack())
    receiving = {asyncio.create_task(receive(one)): one for one in (first, second)}
    await publish(broker, topic, b"three", b"four")
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait(receiving)
    assert sorted(body for task in receiving for body in bodies(task.result())) == [b"four", b"three"]


async def test_settlements_and_the_next_messages_share_a_commit(open_broker: Any, topic: str) -> None:
    broker = await open_broker({"partitions": 1})
    consumer: Any = await broker.consume(topic, queue=topic, prefetch=2)
    await publish(broker, topic, b"a", b"b", b"c", b"d")
    held = await receive(consumer, 2)
    async with asyncio.timeout(PATIENCE):
        while len(consumer._waiting) < 2:
            consumer._news.clear()
            await consumer._news.wait()
    commits: list[Any] = []
    commit = consumer._member.commit
    consumer._member.commit = lambda offsets: commits.append(offsets) or commit(offsets)
    await asyncio.gather(*(consumer.settle(delivery, Ack()) for delivery in held))
    assert bodies(await receive(consumer, 2)) == [b"c", b"d"]
    assert len(commits) == 1


async def test_a_queue_may_begin_with_what_is_there(open_broker: Any, topic: str) -> None:
    broker = await open_broker()
    await publish(broker, topic, b"old")
    new = await broker.consume(topic, queue="new")
    kept = await broker.consume(topic, queue="kept", native=KafkaSubscription(start="kept"))
    everything = await broker.consume(topic, native=KafkaSubscription(start="kept"))
    await publish(broker, topic, b"fresh")
    assert bodies(await receive(new)) == [b"fresh"]
    assert sorted(bodies(await receive(kept, 2))) == [b"fresh", b"old"]
    assert sorted(bodies(await receive(everything, 2))) == [b"fresh", b"old"]


async def test_one_queue_on_two_topics_keeps_them_apart(open_broker: Any, topic: str) -> None:
    broker = await open_broker()
    one, two = await asyncio.gather(*(broker.consume(f"{topic}.{name}", queue=topic) for name in ("one", "two")))
    await publish(broker, f"{topic}.one", b"1", b"1")
    await publish(broker, f"{topic}.two", b"2", b"2")
    assert bodies(await receive(one, 2)) == [b"1", b"1"]
    assert bodies(await receive(two, 2)) == [b"2", b"2"]
