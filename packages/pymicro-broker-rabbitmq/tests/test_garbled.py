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
from pymicro_broker_rabbitmq._broker import RabbitmqBroker
from pymicro_testing import no_leaks
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import RabbitmqServer

OpenBroker = Callable[..., Awaitable[RabbitmqBroker]]


def body(number: int) -> bytes:
    """Longer than what goes by before bytes are garbled: they are spent on the first message."""
    return b"%d " % number + b"x" * 500


@pytest.mark.parametrize("to_client", [True, False])
@pytest.mark.parametrize("durable", [False, True])
async def test_garbled_bytes_are_survived(
    open_broker: OpenBroker, rabbitmq_server: RabbitmqServer, durable: bool, to_client: bool
) -> None:
    topic = f"garbled-{uuid.uuid4().hex}"
    async with no_leaks(), FaultProxy(rabbitmq_server.address) as proxy:
        broker = await open_broker({"durable": durable}, addresses=(proxy.address,))
        async with aclosing(await broker.consume(topic)) as consumer:
            number = 0
            for after in (3, 40):  # the length of a frame, and something else
                proxy.garble(after=after, size=3, to_client=to_client)
                number, strange = await survive(broker, consumer, topic, number)
                assert strange <= 1  # the one whose body was hit: nothing in the protocol tells
        await broker.aclose()


async def survive(broker: RabbitmqBroker, consumer: Consumer, topic: str, number: int) -> tuple[int, int]:
    """Publish until the third message or a later one arrives; the next number, and how many bodies were wrong."""
    first, strange = number, 0
    async with asyncio.timeout(20):
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
