"""redis-py: streams, where an acknowledged message is deleted, and publish/subscribe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ResponseError

from messaging import PREFETCH, QUEUE, Publish, Take
from messaging._tasks import Beside, running

DISTRIBUTIONS = {"redis_streams": ("redis",), "redis_pubsub": ("redis",)}
_CONNECTIONS = 20  # as many as pymicro has
_BLOCK = 500  # milliseconds
_CHUNK = 100


async def prepare(backend: str, address: str, topic: str) -> None:
    """See `Raw`. Nothing: who consumes makes the group."""


@asynccontextmanager
async def _client(address: str) -> AsyncIterator[Any]:
    pool = BlockingConnectionPool.from_url(f"redis://{address}", max_connections=_CONNECTIONS, timeout=30)
    client: Any = Redis(connection_pool=pool)
    try:
        yield client
    finally:
        await client.aclose()
        await pool.disconnect()


@asynccontextmanager
async def publisher(backend: str, address: str, topic: str) -> AsyncIterator[Publish]:
    """See `Messenger`."""
    async with _client(address) as client:

        async def add(body: bytes) -> None:
            await client.xadd(topic, {"body": body})

        async def publish(body: bytes) -> None:
            await client.publish(topic, body)

        yield add if backend == "redis_streams" else publish


@asynccontextmanager
async def consumer(backend: str, address: str, topic: str, take: Take) -> AsyncIterator[None]:
    """See `Messenger`."""
    async with _client(address) as client:
        if backend == "redis_streams":
            with suppress(ResponseError):  # the group exists
                await client.xgroup_create(topic, QUEUE, id="$", mkstream=True)
            async with running(_read(client, topic, take)):
                yield
        else:
            async with client.pubsub() as channel:
                await channel.subscribe(topic)
                await channel.get_message(timeout=None)  # the server has it
                async with running(_listen(channel, take)):
                    yield


async def _read(client: Any, topic: str, take: Take) -> None:
    async def handle(id: bytes, body: bytes) -> None:
        await take(body)
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.xack(topic, QUEUE, id)
            pipeline.xdel(topic, id)
            await pipeline.execute()

    while True:
        for _, entries in await client.xreadgroup(QUEUE, "one", {topic: ">"}, count=PREFETCH, block=_BLOCK):
            await asyncio.gather(*(handle(id, fields[b"body"]) for id, fields in entries))


async def _listen(channel: Any, take: Take) -> None:
    beside = Beside()
    while True:
        message = await channel.get_message(ignore_subscribe_messages=True, timeout=None)
        if message is not None:
            await beside.begin(take(message["data"]))


class _Record:
    def __init__(self, client: Any, channel: Any, topic: str, number: int) -> None:
        self._client = client
        self._channel = channel
        self._topic = topic
        self._number = number
        self._bodies: list[bytes] = []

    async def complete(self) -> None:
        """See `Record`."""
        while len(self._bodies) < self._number:
            message = await self._channel.get_message(ignore_subscribe_messages=True, timeout=None)
            if message is not None:
                self._bodies.append(message["data"])
        await self._channel.unsubscribe()

    async def blast(self, messages: int) -> None:
        """See `Record`."""
        for first in range(0, messages, _CHUNK):
            async with self._client.pipeline(transaction=False) as pipeline:
                for number in range(first, min(first + _CHUNK, messages)):
                    pipeline.publish(self._topic, self._bodies[number % self._number])
                await pipeline.execute()


@asynccontextmanager
async def recorder(backend: str, address: str, topic: str, number: int) -> AsyncIterator[_Record]:
    """See `Raw`."""
    async with _client(address) as client, client.pubsub() as channel:
        await channel.subscribe(topic)
        await channel.get_message(timeout=None)
        yield _Record(client, channel, topic, number)
