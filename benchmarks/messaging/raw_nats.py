"""nats-py: core NATS, where a flush confirms each message, and JetStream, with the ids that let it be tried again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from messaging import PREFETCH, QUEUE, Echo, Publish, Take
from messaging._tasks import Beside, running

DISTRIBUTIONS = {"nats": ("nats-py",), "jetstream": ("nats-py",)}
CALLING = {"nats": ("nats-py",)}
_CHUNK = 256


async def prepare(backend: str, address: str, topic: str) -> None:
    """See `Raw`. Nothing: who consumes makes the stream."""


@asynccontextmanager
async def publisher(backend: str, address: str, topic: str) -> AsyncIterator[Publish]:
    """See `Messenger`."""
    connection = await nats.connect(address)
    jetstream = connection.jetstream()
    ids = itertools.count()

    async def confirmed(body: bytes) -> None:
        await connection.publish(topic, body)
        await connection.flush()

    async def acknowledged(body: bytes) -> None:
        await jetstream.publish(topic, body, headers={"Nats-Msg-Id": f"{topic}.{next(ids)}"})

    try:
        yield confirmed if backend == "nats" else acknowledged
    finally:
        await connection.close()


@asynccontextmanager
async def consumer(backend: str, address: str, topic: str, take: Take) -> AsyncIterator[None]:
    """See `Messenger`."""
    connection = await nats.connect(address)
    try:
        if backend == "nats":
            beside = Beside()

            async def taken(message: Any) -> None:
                await beside.begin(take(message.data))

            await connection.subscribe(topic, queue=QUEUE, cb=taken)
            await connection.flush()
            yield
        else:
            async with running(_pull(await _pulled(connection, topic), take)):
                yield
            await connection.flush()
    finally:
        await connection.close()


async def _pulled(connection: Any, topic: str) -> Any:
    jetstream, stream = connection.jetstream(), topic.replace(".", "_")
    await jetstream.add_stream(StreamConfig(name=stream, subjects=[topic], retention=RetentionPolicy.INTEREST))
    config = ConsumerConfig(durable_name=QUEUE, ack_policy=AckPolicy.EXPLICIT)
    await jetstream.add_consumer(stream, config)
    return await jetstream.pull_subscribe_bind(durable=QUEUE, stream=stream)


async def _pull(subscription: Any, take: Take) -> None:
    async def handle(message: Any) -> None:
        await take(message.data)
        await message.ack()

    while True:
        try:
            messages = await subscription.fetch(PREFETCH)
        except NatsTimeoutError:
            continue
        await asyncio.gather(*map(handle, messages))


class _Record:
    def __init__(self, connection: Any, topic: str, number: int) -> None:
        self._connection = connection
        self._topic = topic
        self._number = number
        self._messages: list[Any] = []
        self._complete = asyncio.Event()
        self.subscription: Any = None

    async def add(self, message: Any) -> None:
        self._messages.append(message)
        if len(self._messages) == self._number:
            self._complete.set()

    async def complete(self) -> None:
        """See `Record`."""
        await self._complete.wait()
        await self.subscription.unsubscribe()

    async def blast(self, messages: int) -> None:
        """See `Record`."""
        for number in range(messages):
            message = self._messages[number % self._number]
            await self._connection.publish(self._topic, message.data, headers=message.headers)
            if number % _CHUNK == 0:
                await self._connection.flush()
        await self._connection.flush()


@asynccontextmanager
async def recorder(backend: str, address: str, topic: str, number: int) -> AsyncIterator[_Record]:
    """See `Raw`."""
    connection = await nats.connect(address)
    record = _Record(connection, topic, number)
    try:
        record.subscription = await connection.subscribe(topic, cb=record.add)
        await connection.flush()
        yield record
    finally:
        await connection.close()


@asynccontextmanager
async def server(backend: str, address: str, topic: str) -> AsyncIterator[str]:
    """See `Calling`."""
    connection = await nats.connect(address)

    async def answer(message: Any) -> None:
        await message.respond(message.data)

    try:
        await connection.subscribe(topic, cb=answer)
        await connection.flush()
        yield topic
    finally:
        await connection.close()


@asynccontextmanager
async def caller(backend: str, address: str, where: str) -> AsyncIterator[Echo]:
    """See `Calling`."""
    connection = await nats.connect(address)

    async def call(data: bytes) -> bytes:
        answer: bytes = (await connection.request(where, data, timeout=30)).data
        return answer

    try:
        yield call
    finally:
        await connection.close()
