"""What no conformance case has: publishers that give up, a server that lost its data, members that die."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from pymicro.broker import Ack, Consumer
from pymicro.errors import BackendUnavailable
from pymicro.message import Message
from pymicro_testing.servers import KafkaServer

PATIENCE = 20.0


async def test_what_becomes_of_a_message_that_was_given_up_is_no_news(
    kafka_server: KafkaServer, open_broker: Callable[..., Any], topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await open_broker(timeout=1.0)
    await broker.publish(topic, Message(body=b"first"), timeout=PATIENCE)
    await kafka_server.pause()
    try:
        publishing = asyncio.create_task(broker.publish(topic, Message(body=b"cancelled"), timeout=PATIENCE))
        with pytest.raises(BackendUnavailable, match=r"not confirmed within 0\.1 s"):
            await broker.publish(topic, Message(body=b"late"), timeout=0.1)
        publishing.cancel()
        await asyncio.wait({publishing})
        await broker.aclose()  # the driver gives both up
    finally:
        await kafka_server.resume()
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def until(consumer: Consumer, *wanted: bytes) -> None:
    """Receive and acknowledge until these came."""
    missing = set(wanted)
    async with asyncio.timeout(PATIENCE):
        while missing:
            for delivery in await consumer.receive(10):
                missing.discard(bytes(delivery.message.body))
                await consumer.settle(delivery, Ack())


async def test_after_the_server_lost_everything_each_consumer_goes_on(
    kafka_server: KafkaServer, open_broker: Callable[..., Any], topic: str
) -> None:
    broker = await open_broker(timeout=10.0)
    everything = await broker.consume(topic)
    members = [await broker.consume(topic, queue=topic) for _ in range(2)]
    before = [f"before {number}".encode() for number in range(20)]
    for body in before:
        await broker.publish(topic, Message(body=body), timeout=PATIENCE)
    await until(everything, *before)
    (held,) = await members[0].receive(1)
    await kafka_server.forget()
    after = [f"after {number}".encode() for number in range(10)]
    for body in after:
        await broker.publish(topic, Message(body=body), timeout=PATIENCE)
    await until(everything, *after)
    seen: set[bytes] = set()

    async def take(member: Consumer) -> None:
        while not seen.issuperset(after):
            for delivery in await member.receive(10):
                seen.add(bytes(delivery.message.body))
                await member.settle(delivery, Ack())

    taking = [asyncio.create_task(take(member)) for member in members]
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait(taking, return_when=asyncio.FIRST_COMPLETED)
    for task in taking:
        task.cancel()
    await asyncio.wait(taking)
    with pytest.raises(BackendUnavailable):
        await members[0].settle(held, Ack())
