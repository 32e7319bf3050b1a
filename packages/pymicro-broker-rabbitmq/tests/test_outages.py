"""The real server goes away under load, and comes back."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from pymicro.broker import Ack, Dispatcher, RetryPolicy
from pymicro.errors import BackendUnavailable
from pymicro.message import Message
from pymicro_testing.servers import RabbitmqServer

PATIENCE = 30.0


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


async def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.01)


@pytest.mark.kills
async def test_what_go_micro_declares_comes_back_after_a_crash(
    open_broker: Any, rabbitmq_server: RabbitmqServer
) -> None:
    publisher, subscriber = await open_broker(), await open_broker()
    topic = unique("crash")
    async with asyncio.timeout(PATIENCE):
        shared = await subscriber.consume(topic, queue=unique("workers"))
        private = await subscriber.consume(topic)
        await publisher.publish("another", Message(), timeout=PATIENCE)
        await rabbitmq_server.kill()
        waiting = asyncio.create_task(publisher.publish("another", Message(), timeout=PATIENCE))
        await rabbitmq_server.start()
        await waiting  # it waited for the server
        await until(lambda: shared.attached and private.attached)
        await publisher.publish(topic, Message(body=b"after"), timeout=PATIENCE)
        for consumer in (shared, private):
            (delivery,) = await consumer.receive(1)
            assert delivery.message.body == b"after"
            await consumer.settle(delivery, Ack())


async def test_a_message_that_is_never_handled_is_delivered_as_often_as_the_policy_says(open_broker: Any) -> None:
    broker, topic = await open_broker({"durable": True}), unique("poison")
    counts: list[int] = []
    dead = await broker.consume(f"{topic}.dead", queue="undertaker")

    async def fail(delivery: Any) -> None:
        counts.append(delivery.count)
        raise RuntimeError("as always")

    policy = RetryPolicy(max_deliveries=4, delay=0.01)
    async with asyncio.timeout(PATIENCE):
        async with Dispatcher(broker, topic, fail, queue="workers", retry=policy) as first:
            await broker.publish(topic, Message(body=b"poison"), key="k", timeout=5)
            await until(lambda: len(counts) == 2)
            await first.drain(PATIENCE)
        async with Dispatcher(broker, topic, fail, queue="workers", retry=policy):
            (letter,) = await dead.receive(1)  # the second worker goes on where the first one stopped
    assert counts == [1, 2, 3, 4]
    assert (letter.message.body, letter.key) == (b"poison", "k")
    assert letter.message.headers["Micro-Dead-Count"] == "4"
    assert letter.message.headers["Micro-Dead-Reason"] == "RuntimeError: as always"


async def test_a_consumer_is_back_when_its_queue_was_deleted(open_broker: Any) -> None:
    broker, topic = await open_broker({"durable": True}), unique("deleted")
    consumer = await broker.consume(topic, queue="workers")
    connection = await broker._incoming.connection()
    channel = await connection.channel()
    await channel.queue_delete(f"workers@{topic}")
    async with asyncio.timeout(PATIENCE):
        receiving = asyncio.create_task(consumer.receive(1))
        while not receiving.done():
            await broker.publish(topic, Message(body=b"new"), timeout=5)  # is lost while there is no queue
            await asyncio.wait([receiving], timeout=0.05)
        (delivery,) = receiving.result()
    assert delivery.message.body == b"new"
    await channel.close()


async def test_a_server_that_is_short_of_disk_says_so_to_publishers_and_takes_more_later(
    open_broker: Any, rabbitmq_server: RabbitmqServer
) -> None:
    broker, topic = await open_broker({"durable": True}), unique("full")
    consumer = await broker.consume(topic, queue="workers")
    await broker.publish(topic, Message(body=b"before"), timeout=PATIENCE)
    await rabbitmq_server.control("set_disk_free_limit", "1000000GB")
    try:
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match=r"within 0.5 s: the server is short of memory or disk"):
                await broker.publish(topic, Message(body=b"meanwhile"), timeout=0.5)
    finally:
        await rabbitmq_server.control("set_disk_free_limit", "50MB")
    await broker.publish(topic, Message(body=b"after"), timeout=PATIENCE)
    bodies: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while b"after" not in bodies:
            for delivery in await consumer.receive(10):
                bodies.append(bytes(delivery.message.body))
                await consumer.settle(delivery, Ack())
    assert bodies[0] == b"before"
