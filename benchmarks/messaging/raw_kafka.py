"""kafka-python: a producer with acks=all, and a consumer that commits what it handled after each poll.

It is a blocking library: its producer's futures are waited for in asyncio, and its consumer has a thread. It counts no
deliveries, which pymicro does in what it commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from threading import Event
from typing import Any, NoReturn

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from messaging import PREFETCH, QUEUE, Publish, Record, Take

DISTRIBUTIONS = {"kafka": ("kafka-python",)}
_POLL = 200  # milliseconds
#: Bytes of one batch, as pymicro has it: by default, 16 KiB, it would send five where one does.
_BATCH = 256 * 1024


async def prepare(backend: str, address: str, topic: str) -> None:
    """See `Raw`."""
    await asyncio.to_thread(_make, address, topic)


def _make(address: str, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        admin.close()


@asynccontextmanager
async def publisher(backend: str, address: str, topic: str) -> AsyncIterator[Publish]:
    """See `Messenger`."""
    loop = asyncio.get_running_loop()
    producer = await asyncio.to_thread(KafkaProducer, bootstrap_servers=address, acks="all", batch_size=_BATCH)
    await asyncio.to_thread(producer.partitions_for, topic)

    async def publish(body: bytes) -> None:
        known: asyncio.Future[None] = loop.create_future()
        sent: Any = producer.send(topic, body)
        sent.add_callback(lambda _: loop.call_soon_threadsafe(known.set_result, None))
        sent.add_errback(lambda error: loop.call_soon_threadsafe(known.set_exception, error))
        await known

    try:
        yield publish
    finally:
        await asyncio.to_thread(producer.close)


@asynccontextmanager
async def consumer(backend: str, address: str, topic: str, take: Take) -> AsyncIterator[None]:
    """See `Messenger`."""
    loop, stop = asyncio.get_running_loop(), Event()

    async def handle(bodies: list[bytes]) -> None:
        await asyncio.gather(*map(take, bodies))

    def work() -> None:
        found = KafkaConsumer(
            topic,
            bootstrap_servers=address,
            group_id=f"{QUEUE}@{topic}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=PREFETCH,
        )
        try:
            while not stop.is_set():
                records = found.poll(timeout_ms=_POLL)
                bodies = [record.value for part in records.values() for record in part]
                if bodies:
                    asyncio.run_coroutine_threadsafe(handle(bodies), loop).result()
                    found.commit()
        finally:
            found.close()

    working = loop.run_in_executor(None, work)
    try:
        yield
    finally:
        stop.set()
        await working


def recorder(backend: str, address: str, topic: str, number: int) -> AbstractAsyncContextManager[Record]:
    """See `Raw`. Its topics keep messages."""
    return _nothing_to_record()


def _nothing_to_record() -> NoReturn:
    raise NotImplementedError("it keeps messages")
