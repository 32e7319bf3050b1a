"""Bytes that arrive as others: an error or a new connection, and soon all is as before."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

import pytest

from pymicro.broker import Ack, Consumer
from pymicro.errors import ConnectionFailed
from pymicro.message import Message
from pymicro_broker_redis._broker import RedisBroker
from pymicro_testing import no_leaks
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import RedisServer

OpenBroker = Callable[..., Awaitable[RedisBroker]]


def body(number: int) -> bytes:
    """Longer than what goes by before bytes are garbled: they are spent on the first message."""
    return b"%d " % number + b"x" * 500


@pytest.mark.parametrize("to_client", [True, False])
@pytest.mark.parametrize(("mode", "wrong"), [("streams", 1), ("pubsub", 0)])  # only an envelope tells that it was hit
async def test_garbled_bytes_are_survived(
    open_broker: OpenBroker, redis_server: RedisServer, mode: str, wrong: int, to_client: bool
) -> None:
    topic = f"garbled-{uuid.uuid4().hex}"
    async with no_leaks(), FaultProxy(redis_server.address) as proxy:
        broker = await open_broker({"mode": mode}, addresses=(proxy.address,), timeout=1.0)
        async with aclosing(await broker.consume(topic)) as consumer:
            number = 0
            for after in (0, 7, 40):
                proxy.garble(after=after, size=3, to_client=to_client)
                number, strange = await survive(broker, consumer, topic, number)
                assert strange <= wrong
        await broker.aclose()


async def survive(broker: RedisBroker, consumer: Consumer, topic: str, number: int) -> tuple[int, int]:
    """Publish until the third message or a later one arrives; the next number, and how many bodies were wrong."""
    first, strange = number, 0
    async with asyncio.timeout(10):
        while True:
            number += 1
            with suppress(ConnectionFailed):
                await broker.publish(topic, Message(body=body(number)), timeout=1)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    for delivery in await consumer.receive(10):
                        got = delivery.message.body
                        with suppress(ConnectionFailed):
                            await consumer.settle(delivery, Ack())
                        if got not in {body(sent) for sent in range(number + 1)}:
                            strange += 1
                        elif int(got.split()[0]) > first + 2:
                            return number, strange
