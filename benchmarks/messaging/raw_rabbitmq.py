"""aio-pika: publisher confirms, persistent messages in a quorum queue, an acknowledgement for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NoReturn

from aio_pika import DeliveryMode, ExchangeType, Message, connect
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aio_pika.patterns import RPC

from messaging import PREFETCH, QUEUE, Echo, Publish, Record, Take

DISTRIBUTIONS = {"rabbitmq": ("aio-pika", "aiormq")}
CALLING = DISTRIBUTIONS
_EXCHANGE = "benchmark"


async def prepare(backend: str, address: str, topic: str) -> None:
    """See `Raw`. Nothing: who consumes declares the queue."""


@asynccontextmanager
async def publisher(backend: str, address: str, topic: str) -> AsyncIterator[Publish]:
    """See `Messenger`."""
    async with await connect(f"amqp://guest:guest@{address}/") as connection:
        exchange = await _exchange(await connection.channel(publisher_confirms=True))

        async def publish(body: bytes) -> None:
            await exchange.publish(Message(body, delivery_mode=DeliveryMode.PERSISTENT), topic, mandatory=False)

        yield publish


@asynccontextmanager
async def consumer(backend: str, address: str, topic: str, take: Take) -> AsyncIterator[None]:
    """See `Messenger`."""
    async with await connect(f"amqp://guest:guest@{address}/") as connection:
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.declare_queue(f"{QUEUE}@{topic}", durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(await _exchange(channel), topic)

        async def taken(message: AbstractIncomingMessage) -> None:
            await take(message.body)
            await message.ack()

        tag = await queue.consume(taken)
        yield
        await queue.cancel(tag)


async def _exchange(channel: AbstractChannel) -> AbstractExchange:
    return await channel.declare_exchange(_EXCHANGE, ExchangeType.TOPIC, durable=True)


def recorder(backend: str, address: str, topic: str, number: int) -> AbstractAsyncContextManager[Record]:
    """See `Raw`. Its queues keep messages."""
    return _nothing_to_record()


def _nothing_to_record() -> NoReturn:
    raise NotImplementedError("it keeps messages")


@asynccontextmanager
async def server(backend: str, address: str, topic: str) -> AsyncIterator[str]:
    """See `Calling`. The library's own pattern, which sends pickles."""

    async def echo(*, data: bytes) -> bytes:
        return data

    async with await connect(f"amqp://guest:guest@{address}/") as connection:
        rpc = await RPC.create(await connection.channel())
        await rpc.register(topic, echo, auto_delete=True)
        yield topic
        await rpc.close()


@asynccontextmanager
async def caller(backend: str, address: str, where: str) -> AsyncIterator[Echo]:
    """See `Calling`."""
    async with await connect(f"amqp://guest:guest@{address}/") as connection:
        rpc = await RPC.create(await connection.channel())

        async def call(data: bytes) -> bytes:
            answer: bytes = await rpc.call(where, {"data": data})
            return answer

        yield call
        await rpc.close()
