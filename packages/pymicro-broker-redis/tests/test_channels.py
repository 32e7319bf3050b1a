"""Publish/subscribe: Go Micro's envelope, and what is lost is told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from redis.asyncio import Redis

from pymicro.broker import Ack, Capability, Consumer
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro_broker_redis._broker import RedisBroker
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import RedisServer

OpenBroker = Callable[..., Awaitable[RedisBroker]]
PUBSUB = {"mode": "pubsub"}


async def take(consumer: Consumer) -> Message:
    async with asyncio.timeout(5):
        (delivery,) = await consumer.receive(1)
        await consumer.settle(delivery, Ack())
    return delivery.message


async def ask(server: RedisServer, *command: Any) -> Any:
    async with Redis(host="127.0.0.1", port=server.port) as client:
        return await client.execute_command(*command)


async def test_an_event_is_published_as_go_publishes_it(open_broker: OpenBroker, redis_server: RedisServer) -> None:
    broker = await open_broker(PUBSUB)
    async with Redis(host="127.0.0.1", port=redis_server.port) as client, client.pubsub() as listener:
        await listener.subscribe("rt")
        await listener.get_message(timeout=5)
        headers = Headers({"content-type": "application/json", "X-Trace": "abc", "Micro-Id": "1"})
        await broker.publish("rt", Message(headers, b'{"name":"py"}'), timeout=5)
        told = await listener.get_message(timeout=5)
    assert json.loads(told["data"]) == {
        "Header": {
            "Content-Type": "application/json",
            "Micro-ID": "1",
            "Micro-Id": "1",
            "Micro-Topic": "rt",
            "X-Trace": "abc",
        },
        "Body": "eyJuYW1lIjoicHkifQ==",
    }


@pytest.mark.parametrize(
    ("envelope", "headers", "body"),
    [
        (
            '{"Header":{"Content-Type":"a/b","Micro-ID":"1"},"Body":"cmF3"}',
            {"Content-Type": "a/b", "Micro-ID": "1"},
            b"raw",
        ),
        ('{"Header":null,"Body":null}', {}, b""),
        ('{"More":1}', {}, b""),
    ],
)
async def test_what_go_publishes_arrives(
    envelope: str, headers: dict[str, str], body: bytes, open_broker: OpenBroker, redis_server: RedisServer
) -> None:
    broker = await open_broker(PUBSUB)
    async with aclosing(await broker.consume("rt")) as consumer:
        await ask(redis_server, "PUBLISH", "rt", envelope)
        message = await take(consumer)
    assert (message.headers, message.body) == (headers, body)


@pytest.mark.parametrize("payload", ["no JSON", '{"Header":[]}', '{"Body":"%"}', b"\xff", "[" * 100_000, "x" * 200_000])
async def test_what_is_no_envelope_is_dropped_and_told(
    payload: str | bytes, open_broker: OpenBroker, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await open_broker(PUBSUB, limits=Limits(message=1000, headers=1000))
    async with aclosing(await broker.consume("rt")) as consumer:
        await ask(redis_server, "PUBLISH", "rt", payload)
        await broker.publish("rt", Message(body=b"good"), timeout=5)
        assert (await take(consumer)).body == b"good"
    assert caplog.text.count("message dropped") == 1


async def test_an_interruption_is_told_once_and_ends(
    open_broker: OpenBroker, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with FaultProxy(redis_server.address) as proxy:
        broker = await open_broker(PUBSUB, addresses=(proxy.address,))
        async with aclosing(await broker.consume("rt")) as consumer:
            await proxy.stop()
            await _until(lambda: not consumer.attached)
            await proxy.start()
            await _until(lambda: consumer.attached)
            await broker.publish("rt", Message(body=b"after"), timeout=5)
            assert (await take(consumer)).body == b"after"
    assert caplog.text.count("subscription interrupted") == 1
    assert caplog.text.count("subscription works again") == 1


async def test_a_slow_subscriber_holds_no_more_than_its_prefetch(
    open_broker: OpenBroker, redis_server: RedisServer
) -> None:
    broker = await open_broker(PUBSUB)
    async with aclosing(await broker.consume("rt", prefetch=2)) as consumer:
        for number in range(200):
            await broker.publish("rt", Message(body=b"%d" % number + b"x" * 1000), timeout=5)
        async with asyncio.timeout(5):
            held = [*await consumer.receive(2)]
            held += await consumer.receive(2) if len(held) < 2 else []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await consumer.receive(1)
        for delivery in held:
            await consumer.settle(delivery, Ack())
        rest = [(await take(consumer)).body for _ in range(198)]
    assert [int(body.rstrip(b"x")) for body in rest] == list(range(2, 200)), "the server kept the others"


async def test_queues_are_not_promised(open_broker: OpenBroker) -> None:
    broker = await open_broker(PUBSUB)
    assert broker.capabilities == {Capability.ORDERED}
    async with (
        aclosing(await broker.consume("rt", queue="q")) as one,
        aclosing(await broker.consume("rt", queue="q")) as two,
    ):
        await broker.publish("rt", Message(body=b"all"), timeout=5)
        assert [(await take(each)).body for each in (one, two)] == [b"all", b"all"], "as with Go's plugin"


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 (no event says it)
            await asyncio.sleep(0.01)
