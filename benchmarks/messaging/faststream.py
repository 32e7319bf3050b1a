"""FastStream, without its line in the log for each message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from messaging import PREFETCH, QUEUE, Publish, Take

DISTRIBUTIONS: dict[str, Sequence[str]] = {
    "nats": ("faststream", "nats-py"),
    "jetstream": ("faststream", "nats-py"),
    "rabbitmq": ("faststream", "aio-pika"),
    "redis_streams": ("faststream", "redis"),
    "redis_pubsub": ("faststream", "redis"),
    "kafka": ("faststream", "aiokafka"),
}
_POLL = 0.01  # seconds


class _Kind:
    broker: Any

    async def attached(self) -> None:
        """Wait until the server knows of the subscription, where starting does not."""


class _Nats(_Kind):
    def __init__(self, address: str, topic: str) -> None:
        from faststream.nats import NatsBroker

        self.broker: Any = NatsBroker(f"nats://{address}", logger=None)
        self.topic = topic

    def subscriber(self) -> Any:
        return self.broker.subscriber(self.topic, queue=QUEUE)

    async def attached(self) -> None:
        await (await self.broker.connect()).flush()

    async def publisher(self) -> Callable[[bytes], Awaitable[object]]:
        connection = await self.broker.connect()

        async def publish(body: bytes) -> None:
            await self.broker.publish(body, self.topic)
            await connection.flush()

        return publish


class _Jetstream(_Nats):
    def subscriber(self) -> Any:
        from faststream.nats import JStream, PullSub
        from nats.js.api import RetentionPolicy

        stream = JStream(self._stream, subjects=[self.topic], retention=RetentionPolicy.INTEREST)
        return self.broker.subscriber(self.topic, stream=stream, durable=QUEUE, pull_sub=PullSub(PREFETCH))

    async def publisher(self) -> Callable[[bytes], Awaitable[object]]:
        await self.broker.connect()
        return lambda body: self.broker.publish(body, self.topic, stream=self._stream)

    @property
    def _stream(self) -> str:
        return self.topic.replace(".", "_")


class _Rabbitmq(_Kind):
    def __init__(self, address: str, topic: str) -> None:
        from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue

        channel = Channel(prefetch_count=PREFETCH)
        self.broker: Any = RabbitBroker(f"amqp://guest:guest@{address}/", default_channel=channel, logger=None)
        self._exchange = RabbitExchange("benchmark", type=ExchangeType.TOPIC, durable=True)
        self._queue = RabbitQueue(f"{QUEUE}@{topic}", queue_type=QueueType.QUORUM, durable=True, routing_key=topic)
        self._topic = topic

    def subscriber(self) -> Any:
        return self.broker.subscriber(self._queue, self._exchange)

    async def publisher(self) -> Callable[[bytes], Awaitable[object]]:
        await self.broker.connect()
        return lambda body: self.broker.publish(
            body, exchange=self._exchange, routing_key=self._topic, persist=True, mandatory=False
        )


class _Pubsub(_Kind):
    where = "channel"

    def __init__(self, address: str, topic: str) -> None:
        from faststream.redis import RedisBroker

        self.broker: Any = RedisBroker(f"redis://{address}", logger=None)
        self.topic = topic

    def subscriber(self) -> Any:
        return self.broker.subscriber(self.topic)

    async def attached(self) -> None:
        client = await self.broker.connect()
        while not (await client.pubsub_numsub(self.topic))[0][1]:  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(_POLL)

    async def publisher(self) -> Callable[[bytes], Awaitable[object]]:
        await self.broker.connect()
        return lambda body: self.broker.publish(body, **{self.where: self.topic})


class _Streams(_Pubsub):
    where = "stream"

    async def attached(self) -> None:
        """Starting made the group."""

    def subscriber(self) -> Any:
        from faststream.redis import StreamSub

        return self.broker.subscriber(stream=StreamSub(self.topic, group=QUEUE, consumer="one", max_records=PREFETCH))


class _Kafka(_Kind):
    def __init__(self, address: str, topic: str) -> None:
        from faststream.kafka import KafkaBroker

        self.broker: Any = KafkaBroker(address, acks="all", logger=None)
        self._topic = topic

    def subscriber(self) -> Any:
        from faststream import AckPolicy

        return self.broker.subscriber(
            self._topic, group_id=f"{QUEUE}@{self._topic}", auto_offset_reset="earliest", ack_policy=AckPolicy.ACK
        )

    async def publisher(self) -> Callable[[bytes], Awaitable[object]]:
        await self.broker.connect()
        await self.broker.start()
        return lambda body: self.broker.publish(body, self._topic)


_KINDS: dict[str, Callable[[str, str], Any]] = {
    "nats": _Nats,
    "jetstream": _Jetstream,
    "rabbitmq": _Rabbitmq,
    "redis_streams": _Streams,
    "redis_pubsub": _Pubsub,
    "kafka": _Kafka,
}


@asynccontextmanager
async def publisher(backend: str, address: str, topic: str) -> AsyncIterator[Publish]:
    """See `Messenger`."""
    made = _KINDS[backend](address, topic)
    try:
        yield await made.publisher()
    finally:
        await made.broker.stop()


@asynccontextmanager
async def consumer(backend: str, address: str, topic: str, take: Take) -> AsyncIterator[None]:
    """See `Messenger`."""
    made = _KINDS[backend](address, topic)

    async def handle(body: bytes) -> None:
        await take(body)

    made.subscriber()(handle)
    await made.broker.start()
    try:
        await made.attached()
        yield
    finally:
        await made.broker.stop()
