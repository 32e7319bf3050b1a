"""Core NATS: bounds without a silent loss, and payloads of others."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import nats
import pytest

from pymicro.broker import Ack, Consumer
from pymicro.errors import ConfigurationError, InvalidOption, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro_broker_nats import NatsSubscription
from pymicro_testing.servers import NatsServer

PATIENCE = 5.0


async def take(consumer: Consumer, count: int) -> list[bytes]:
    bodies: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while len(bodies) < count:
            for delivery in await consumer.receive(count - len(bodies)):
                bodies.append(delivery.message.body)
                await consumer.settle(delivery, Ack())
    return bodies


async def publish(broker: Any, topic: str, *bodies: bytes) -> None:
    for body in bodies:
        await broker.publish(topic, Message(body=body), timeout=PATIENCE)


async def test_a_slow_subscription_is_bounded_and_what_it_loses_is_logged(
    open_broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await open_broker({"max_messages": 10})
    slow, quick = await broker.consume("orders"), await broker.consume("orders")
    sent = [str(number).encode() for number in range(50)]
    with caplog.at_level(logging.INFO):
        taking = asyncio.create_task(take(quick, 50))
        await publish(broker, "orders", *sent)
        assert await taking == sent
        assert await take(slow, 10) == sent[:10]
    await publish(broker, "orders", b"later")
    assert await take(slow, 1) == [b"later"]
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2
    assert "too slow, messages dropped topic=orders" in lines[0]
    assert "keeps up again" in lines[1]
    assert lines[1].endswith("dropped=40")


async def test_a_slow_subscription_is_bounded_in_bytes(open_broker: Any) -> None:
    broker = await open_broker({"max_bytes": 3000})
    slow = await broker.consume("orders")
    await publish(broker, "orders", *[bytes(1500)] * 4)
    assert len(await take(slow, 1)) == 1
    await publish(broker, "orders", b"last")
    assert await take(slow, 1) == [b"last"]


async def test_what_a_closing_subscription_loses_is_logged(open_broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    broker = await open_broker()
    consumer = await broker.consume("orders")
    await publish(broker, "orders", b"one", b"two")
    await consumer.aclose()
    assert "messages lost topic=orders queue='' number=2" in caplog.text


async def test_the_payload_is_that_of_go_micro(open_broker: Any, nats_server: NatsServer) -> None:
    broker = await open_broker()
    connection = await nats.connect(f"nats://{nats_server.address}")
    try:
        subscription = await connection.subscribe("nt.events")
        await connection.flush()
        headers = Headers({"content-type": "application/json", "micro-id": "7", "X-Trace": "abc"})
        await broker.publish("nt.events", Message(headers, b"raw body"), timeout=PATIENCE)
        message = await subscription.next_msg(timeout=PATIENCE)
        assert json.loads(message.data) == {
            "Header": {
                "Content-Type": "application/json",
                "Micro-ID": "7",
                "Micro-Id": "7",
                "Micro-Topic": "nt.events",
                "X-Trace": "abc",
            },
            "Body": "cmF3IGJvZHk=",
        }
    finally:
        await connection.close()


GO = (
    '{"Header":{"Content-Type":"application/json","Micro-ID":"ec4a","Micro-Topic":"nt.events","X-Trace":"abc"},'
    '"Body":"eyJuYW1lIjoiZXYifQo="}'
)
PAYLOADS = {
    GO: ({"Content-Type": "application/json", "Micro-Id": "ec4a", "X-Trace": "abc"}, b'{"name":"ev"}\n'),
    '{"Header":null,"Body":null}': ({}, b""),
    '{"Body":"eA=="}': ({}, b"x"),
    "no JSON": ({}, b"no JSON"),
    '{"Header":{"a":1},"Body":"eA=="}': ({}, b'{"Header":{"a":1},"Body":"eA=="}'),
    "[" * 5000: ({}, b"[" * 5000),
}


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
async def test_payloads_of_others_are_read(open_broker: Any, nats_server: NatsServer, payload: str) -> None:
    broker = await open_broker()
    consumer = await broker.consume("nt.events")
    connection = await nats.connect(f"nats://{nats_server.address}")
    try:
        await connection.publish("nt.events", payload.encode())
        await connection.flush()
        async with asyncio.timeout(PATIENCE):
            (delivery,) = await consumer.receive(1)
    finally:
        await connection.close()
    headers, body = PAYLOADS[payload]
    assert {name: delivery.message.headers.get(name) for name in headers} == headers
    assert delivery.message.body == body
    assert delivery.native.data == payload.encode()


async def test_a_message_over_the_limit_of_the_subscriber_is_dropped_and_logged(
    open_broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    small = await open_broker(limits=Limits(message=1000, headers=1000))
    consumer = await small.consume("orders")
    await publish(await open_broker(), "orders", bytes(20_000), b"small")
    assert await take(consumer, 1) == [b"small"]
    assert "message over the limit dropped" in caplog.text


async def test_a_message_over_the_servers_limit_is_refused(open_broker: Any) -> None:
    broker = await open_broker()
    with pytest.raises(TooLarge, match="max_payload"):
        await publish(broker, "orders", bytes(1024**2))
    await publish(broker, "orders", b"small")


@pytest.mark.parametrize("topic", ["", "a b", "a.*", "a.>", "a..b", ".a", "a.", "$JS.API.INFO", "a\r\nPING", "a\0"])
async def test_topics_that_cannot_be_subjects_are_refused(open_broker: Any, topic: str) -> None:
    broker = await open_broker()
    with pytest.raises(ConfigurationError, match="cannot be a NATS subject"):
        await publish(broker, topic, b"x")
    with pytest.raises(ConfigurationError, match="cannot be a NATS subject"):
        await broker.consume(topic)


async def test_queues_that_cannot_be_queue_groups_are_refused(open_broker: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a NATS queue group"):
        await (await open_broker()).consume("orders", queue="a b")


async def test_options_of_jetstream_are_refused(open_broker: Any) -> None:
    with pytest.raises(InvalidOption, match="for JetStream only"):
        await (await open_broker()).consume("orders", native=NatsSubscription(deliver="all"))
