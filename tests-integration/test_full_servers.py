"""Servers that have no room for more: publishing says so in time, nothing that was taken is lost, and it goes on.

Kafka is not among them: it has no bound of its own on what it stores, and one whose disk is full ends.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import nats
import pytest
from nats.js.api import RetentionPolicy
from redis.asyncio import Redis

from pymicro import Service
from pymicro.broker import RetryPolicy
from pymicro.errors import BackendRefused, BackendUnavailable
from pymicro_testing.servers import NativeServer, RabbitmqServer

SIZE = 64 * 1024

#: Bytes of room that a server has, or a little more.
ROOM = 4 * 1024 * 1024

#: Seconds for one event, and those that a busy machine may add.
TIMEOUT = 1.0
GRACE = 5.0

PATIENCE = 30.0


class Shop:
    """Publishes to a topic and handles what comes of it, in a queue and without one, as soon as it is let.

    Attributes:
        topic: where. It has no dots, so it is a name of a stream, too.
        taken: ids of events that the broker took.
        open: whether handlers do their work, or wait.
        handled: how often each event reached each handler.
    """

    def __init__(self, **options: Any) -> None:
        self.topic = f"full-{uuid.uuid4().hex[:12]}"
        self.taken: set[str] = set()
        self.open = asyncio.Event()
        self.handled: dict[str, Counter[str]] = {"all": Counter(), "queue": Counter()}
        self._news = asyncio.Event()
        self._failed = False
        self.service = Service("shop", environ={}, registry="memory", transport="memory", **options)
        self.service.subscribe(self.topic, self._work, queue="queue", concurrency=4, retry=RetryPolicy(delay=0.1))
        self.service.subscribe(self.topic, self._watch, concurrency=4)

    async def fill(self) -> BaseException:
        """Publish until the broker takes no more; why it does not."""
        async with asyncio.timeout(PATIENCE):
            while True:
                began = time.monotonic()
                try:
                    await self.publish()
                except (BackendRefused, BackendUnavailable) as error:
                    assert time.monotonic() - began < TIMEOUT + GRACE
                    return error

    async def publish(self) -> None:
        """Publish one event."""
        id = uuid.uuid4().hex
        await self.service.publish(self.topic, id.ljust(SIZE, "."), timeout=TIMEOUT)
        self.taken.add(id)

    async def goes_on(self) -> None:
        """Wait until events are taken again."""
        async with asyncio.timeout(PATIENCE):
            for _ in range(10):
                while True:
                    try:
                        await self.publish()
                        break
                    except (BackendRefused, BackendUnavailable):
                        await asyncio.sleep(0.05)

    async def all_handled(self) -> None:
        """Wait until each handler had everything."""
        async with asyncio.timeout(PATIENCE):
            while any(self.taken - handled.keys() for handled in self.handled.values()):
                self._news.clear()
                await self._news.wait()

    async def _work(self, event: str) -> None:
        await self.open.wait()
        if not self._failed:  # what is tried again needs room, too
            self._failed = True
            raise RuntimeError("once")
        self._note("queue", event)

    async def _watch(self, event: str) -> None:
        await self.open.wait()
        self._note("all", event)

    def _note(self, handler: str, event: str) -> None:
        self.handled[handler][event.rstrip(".")] += 1
        self._news.set()


@asynccontextmanager
async def full_redis(server: Callable[..., NativeServer]) -> AsyncIterator[Shop]:
    """Has `maxmemory` and gives nothing up for it."""
    backend = server("redis", settings={"maxmemory-policy": "noeviction"})
    host, _, port = backend.address.partition(":")
    async with Redis(host=host, port=int(port)) as client, AsyncExitStack() as stack:
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used + ROOM)
        stack.push_async_callback(client.config_set, "maxmemory", 0)
        yield Shop(broker="redis", broker_address=backend.address, broker_redis_claim_after=2)


@asynccontextmanager
async def full_stream(server: Callable[..., NativeServer]) -> AsyncIterator[Shop]:
    """Has a bound on the stream."""
    options = {"broker_nats_jetstream": True, "broker_nats_ack_wait": 2, "broker_nats_stream_bytes": ROOM}
    yield Shop(broker="nats", broker_address=server("nats").address, **options)


@asynccontextmanager
async def full_jetstream(server: Callable[..., NativeServer]) -> AsyncIterator[Shop]:
    """Has a bound on all streams together, and a stream of somebody else's without one."""
    backend = server("nats", number=2)  # which no other test has
    backend.settings["jetstream"] = f'{{store_dir: "{backend.data}", max_file_store: {ROOM}}}'
    await backend.restart()
    shop = Shop(broker="nats", broker_address=backend.address, broker_nats_jetstream=True, broker_nats_ack_wait=2)
    client = await nats.connect(backend.address)
    try:
        stream = client.jetstream()
        await stream.add_stream(name=shop.topic, subjects=[shop.topic], retention=RetentionPolicy.INTEREST)
        yield shop
        await stream.delete_stream(shop.topic)
    finally:
        await client.close()


FULL = {
    "redis": (full_redis, "used memory > 'maxmemory'"),
    "stream": (full_stream, "maximum bytes exceeded"),
    "jetstream": (full_jetstream, "insufficient resources"),
}


@pytest.mark.parametrize("how", FULL)
async def test_what_is_handled_makes_room(how: str, server: Callable[..., NativeServer]) -> None:
    make, reason = FULL[how]
    async with make(server) as shop, shop.service:
        for _ in range(2):
            shop.open.clear()
            assert reason in str(await shop.fill())
            assert reason in str(await shop.fill())
            assert not shop.taken <= shop.handled["queue"].keys(), "it was full of something"
            shop.open.set()
            await shop.goes_on()
            await shop.all_handled()


async def test_rabbitmq_takes_nothing_while_the_disk_is_full(rabbitmq_server: RabbitmqServer) -> None:
    shop = Shop(broker="rabbitmq", broker_address=rabbitmq_server.address, broker_rabbitmq_durable=True)
    async with shop.service:
        for _ in range(20):
            await shop.publish()
        await rabbitmq_server.control("set_disk_free_limit", "1000000GB")
        try:
            for _ in range(2):
                assert "short of memory or disk" in str(await shop.fill())
            shop.open.set()
            await shop.all_handled()  # who consumes is not held up
        finally:
            await rabbitmq_server.control("set_disk_free_limit", "50MB")
        await shop.goes_on()
        await shop.all_handled()
