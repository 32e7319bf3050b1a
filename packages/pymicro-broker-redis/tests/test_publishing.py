"""Many publish at once: all get their turn, each has its own time, and nobody has another's error."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from pymicro.broker import Ack, Consumer
from pymicro.errors import BackendRefused, BackendUnavailable
from pymicro.message import Message
from pymicro_broker_redis._broker import RedisBroker
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import RedisServer

OpenBroker = Callable[..., Awaitable[RedisBroker]]


@pytest.fixture
def topic() -> str:
    """One that no other test has."""
    return uuid.uuid4().hex


async def bodies(consumer: Consumer, count: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(8):
        while len(found) < count:
            for delivery in await consumer.receive(count - len(found)):
                found.append(delivery.message.body)
                await consumer.settle(delivery, Ack())
    return found


async def flood(broker: RedisBroker, topic: str, tasks: int, seconds: float) -> list[int]:
    """How many messages each of so many tasks published, back to back."""
    counts = [0] * tasks
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    async def work(number: int) -> None:
        while loop.time() < end:
            await broker.publish(topic, Message(body=b"%d" % number), timeout=30)
            counts[number] += 1

    await asyncio.gather(*map(work, range(tasks)))
    return counts


@pytest.mark.parametrize("mode", ["streams", "pubsub"])
async def test_more_publishers_than_connections_all_get_their_turn(
    open_broker: OpenBroker, topic: str, mode: str
) -> None:
    broker = await open_broker({"mode": mode, "max_connections": 2, "keep": 10}, timeout=0.3)
    counts = await flood(broker, topic, 16, 0.6)
    assert min(counts) > max(counts) / 4


@pytest.mark.parametrize("mode", ["streams", "pubsub"])
async def test_what_is_published_at_once_arrives_complete_and_in_order(
    open_broker: OpenBroker, topic: str, mode: str
) -> None:
    broker = await open_broker({"mode": mode})
    consumer = await broker.consume(topic, prefetch=1000)
    sent = [b"%d " % number + b"x" * 20_000 for number in range(600)]  # more than goes into one request
    await asyncio.gather(*(broker.publish(topic, Message(body=body), timeout=8) for body in sent))
    assert await bodies(consumer, len(sent)) == sent


async def test_an_error_is_told_only_to_whom_it_concerns(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    broker = await open_broker()
    consumer = await broker.consume(topic)
    async with Redis(host="127.0.0.1", port=redis_server.port) as client:
        await client.set(f"pymicro:stream:{topic}-bad", "no stream")
    results = await asyncio.gather(
        *(broker.publish(f"{topic}{'-bad' * (n % 2)}", Message(body=b"%d" % n), timeout=5) for n in range(20)),
        return_exceptions=True,
    )
    assert [isinstance(result, BackendRefused) for result in results] == [n % 2 == 1 for n in range(20)]
    assert [result for result in results[::2] if result is not None] == []
    assert await bodies(consumer, 10) == [b"%d" % n for n in range(0, 20, 2)]


async def test_a_full_topic_holds_up_nobody_else(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker({"max_messages": 3})
    full, other = await broker.consume(f"{topic}-full", queue="q"), await broker.consume(topic, queue="q")
    publishing = [
        asyncio.create_task(broker.publish(f"{topic}-full", Message(body=b"%d" % number), timeout=8))
        for number in range(6)
    ]
    await broker.publish(topic, Message(body=b"other"), timeout=5)
    assert await bodies(other, 1) == [b"other"]
    assert sorted(await bodies(full, 6)) == [b"%d" % number for number in range(6)]
    await asyncio.gather(*publishing)


@pytest.mark.parametrize("mode", ["streams", "pubsub"])
async def test_each_publisher_has_its_own_time(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str, mode: str
) -> None:
    """The server pauses: who has little time fails, who has more than the build's time-out gets through."""
    async with FaultProxy(redis_server.address) as proxy:
        broker = await open_broker({"mode": mode}, addresses=(proxy.address,), timeout=0.3)
        await broker.publish(topic, Message(body=b"first"), timeout=5)
        await proxy.pause()
        patient = [
            asyncio.create_task(broker.publish(topic, Message(body=b"%d" % number), timeout=8)) for number in range(3)
        ]
        with pytest.raises(BackendUnavailable):
            await broker.publish(topic, Message(body=b"hasty"), timeout=0.6)
        assert not any(task.done() for task in patient)
        await proxy.start()
        await asyncio.gather(*patient)


@pytest.mark.parametrize("mode", ["streams", "pubsub"])
async def test_cancelled_publishers_take_no_other_with_them(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str, mode: str
) -> None:
    """Neither of those that were on their way when the server paused, nor of those that waited for them."""
    async with FaultProxy(redis_server.address) as proxy:
        broker = await open_broker({"mode": mode}, addresses=(proxy.address,))
        consumer = await (await open_broker({"mode": mode})).consume(topic)
        await broker.publish(topic, Message(body=b"first"), timeout=5)
        assert await bodies(consumer, 1) == [b"first"]
        await proxy.pause()
        tasks: list[asyncio.Task[None]] = []
        for number in range(8):
            tasks.append(asyncio.create_task(broker.publish(topic, Message(body=b"%d" % number), timeout=8)))
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks[::2])
        assert all(task.cancelled() for task in tasks[::2])
        await proxy.start()
        await asyncio.gather(*tasks[1::2])
        got = await bodies(consumer, 4)
        while not {b"1", b"3", b"5", b"7"} <= {*got}:
            got += await bodies(consumer, 1)
    assert sorted(set(got)) == sorted(got)


async def test_what_was_cancelled_before_its_turn_is_not_published(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    async with FaultProxy(redis_server.address) as proxy:
        broker = await open_broker(addresses=(proxy.address,))
        consumer = await (await open_broker()).consume(topic)
        await broker.publish(topic, Message(body=b"first"), timeout=5)
        await proxy.pause()
        first = asyncio.create_task(broker.publish(topic, Message(body=b"second"), timeout=8))
        for _ in range(3):
            await asyncio.sleep(0)  # it is on its way then
        with pytest.raises(BackendUnavailable):
            await broker.publish(topic, Message(body=b"hasty"), timeout=0.2)
        await proxy.start()
        await first
        await broker.publish(topic, Message(body=b"last"), timeout=5)
        assert await bodies(consumer, 3) == [b"first", b"second", b"last"]
