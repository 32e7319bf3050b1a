"""Streams: what is kept and for how long, and what becomes of it when consumers and servers die."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from itertools import pairwise
from typing import Any

import pytest
from redis.asyncio import Redis

from pymicro.broker import Ack, Broker, Consumer, Delivery, Dispatcher, Retry, RetryPolicy
from pymicro.errors import BackendUnavailable, BadRequest, Closed, InvalidOption
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro_broker_redis import RedisSubscription
from pymicro_broker_redis._broker import RedisBroker
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import RedisServer

OpenBroker = Callable[..., Awaitable[RedisBroker]]
QUICK = RetryPolicy(delay=0.05, factor=1, jitter=0)


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """One that no other test has."""
    return f"{request.node.originalname}-{uuid.uuid4().hex[:8]}"


async def publish(broker: Broker, topic: str, *bodies: str) -> None:
    for body in bodies:
        await broker.publish(topic, Message(Headers({"Content-Type": "text/plain"}), body.encode()), timeout=5)


async def take(consumer: Consumer, count: int) -> list[tuple[str, int]]:
    """Body and count of so many deliveries, which are acknowledged."""
    taken: list[tuple[str, int]] = []
    async with asyncio.timeout(8):
        while len(taken) < count:
            for delivery in await consumer.receive(count - len(taken)):
                taken.append((delivery.message.body.decode(), delivery.count))
                await consumer.settle(delivery, Ack())
    return taken


async def hold(consumer: Consumer) -> Delivery[Any]:
    async with asyncio.timeout(8):
        (delivery,) = await consumer.receive(1)
    return delivery


async def ask(server: RedisServer, *command: Any) -> Any:
    """The answer of the server to a command of the test's own."""
    async with Redis(host="127.0.0.1", port=server.port) as client:
        return await client.execute_command(*command)


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 8) -> None:
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 (it happens in the server)
            await asyncio.sleep(0.02)


def stream(topic: str) -> str:
    return f"pymicro:stream:{topic}"


# who gets what


async def test_what_a_dead_consumer_held_is_with_another_within_a_second_of_its_lease(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    async with FaultProxy(redis_server.address) as proxy:
        dying = await open_broker({"claim_after": 0.5}, addresses=(proxy.address,), timeout=0.5)
        living = await open_broker({"claim_after": 0.5})
        consumer = await dying.consume(topic, queue="q")
        await publish(living, topic, "one")
        await hold(consumer)
        await proxy.stop()
        async with aclosing(await living.consume(topic, queue="q")) as other, asyncio.timeout(1.5):
            assert await take(other, 1) == [("one", 2)]


async def test_a_long_handler_keeps_its_message(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker({"claim_after": 0.4})
    calls: list[int] = []

    async def handle(delivery: Delivery[Any]) -> None:
        calls.append(delivery.count)
        await asyncio.sleep(1.2)  # three leases

    async with Dispatcher(broker, topic, handle, queue="q") as one, Dispatcher(broker, topic, handle, queue="q") as two:
        await publish(broker, topic, "one")
        await until(lambda: _true(bool(calls)))
        await until(lambda: _true(one.in_flight + two.in_flight == 0))
    assert calls == [1]


async def test_a_lease_that_nobody_extends_ends(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker({"claim_after": 0.3})
    async with aclosing(await broker.consume(topic, queue="q")) as consumer:
        await publish(broker, topic, "one")
        first = await hold(consumer)
        second = await hold(consumer)
        assert second.count == 2
        with pytest.raises(ConnectionError, match="not held"):
            await consumer.extend(first)
        await consumer.settle(second, Ack())


async def test_a_poisoned_message_dies_after_its_deliveries_though_workers_restart(
    open_broker: OpenBroker, topic: str
) -> None:
    broker = await open_broker()
    started = asyncio.get_running_loop().time()
    times: list[tuple[int, float]] = []

    async def fail(delivery: Delivery[Any]) -> None:
        times.append((delivery.count, asyncio.get_running_loop().time() - started))
        raise RuntimeError("poison")

    policy = RetryPolicy(max_deliveries=3, delay=0.15, factor=1, jitter=0)
    async with aclosing(await broker.consume(f"{topic}.dead")) as graves:
        await broker.consume(topic, queue="q")
        await broker.publish(topic, Message(Headers({"Traceparent": "x"}), b"bad"), key="k", timeout=5)
        for count in (1, 2, 3):
            worker = await open_broker()
            async with Dispatcher(worker, topic, fail, queue="q", retry=policy) as dispatcher:
                await until(lambda count=count: _true(len(times) == count))
                await dispatcher.drain(5)
        dead = await hold(graves)
        await graves.settle(dead, Ack())
    assert [count for count, _ in times] == [1, 2, 3]
    assert all(later - earlier >= 0.14 for (_, earlier), (_, later) in pairwise(times))
    headers = dead.message.headers
    assert (dead.key, headers["Micro-Dead-Reason"], headers["Traceparent"]) == ("k", "RuntimeError: poison", "x")
    assert (headers["Micro-Dead-Topic"], headers["Micro-Dead-Count"]) == (topic, "3")


async def test_a_delay_outlives_the_consumer(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker()
    async with aclosing(await broker.consume(topic, queue="q")) as first:
        await publish(broker, topic, "one")
        delivery = await hold(first)
        began = asyncio.get_running_loop().time()
        await first.settle(delivery, Retry(0.2))
    async with aclosing(await broker.consume(topic, queue="q")) as second:
        assert await take(second, 1) == [("one", 2)]
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_an_answer_that_was_cut_off_is_found_and_counts_once(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    async with FaultProxy(redis_server.address) as proxy:
        near = await open_broker()
        far = await open_broker(addresses=(proxy.address,), timeout=1.0)
        async with aclosing(await far.consume(topic, queue="q")) as consumer:
            await publish(near, topic, "x" * 50_000)
            proxy.cut(after=20_000)
            ((body, count),) = await take(consumer, 1)  # long before the lease of 30 seconds ends
            assert (len(body), count) == (50_000, 1)


async def test_two_queues_and_then_nothing_is_left(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    broker = await open_broker()
    async with (
        aclosing(await broker.consume(topic, queue="a")) as a,
        aclosing(await broker.consume(topic, queue="b")) as b,
        aclosing(await broker.consume(topic)) as all_of_it,
    ):
        await publish(broker, topic, "1", "2", "3")
        await take(a, 3)
        await take(all_of_it, 3)
        assert await ask(redis_server, "XLEN", stream(topic)) == 3, "b has read none of them"
        held = await hold(b)
        await take(b, 2)
        assert await ask(redis_server, "XLEN", stream(topic)) == 1
        await b.settle(held, Ack())
        assert await ask(redis_server, "XLEN", stream(topic)) == 0


# how much is kept


async def test_publishers_wait_for_room_and_nothing_is_dropped(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker({"max_messages": 3})
    async with aclosing(await broker.consume(topic, queue="q")) as consumer:
        await publish(broker, topic, "1", "2", "3")
        with pytest.raises(BackendUnavailable, match="no room"):
            await broker.publish(topic, Message(body=b"4"), timeout=0.2)
        waiting = asyncio.create_task(publish(broker, topic, "5"))
        assert await take(consumer, 3) == [("1", 1), ("2", 1), ("3", 1)]
        await waiting
        assert await take(consumer, 1) == [("5", 1)]


async def test_a_topic_without_queues_keeps_the_newest_for_who_asks(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker({"max_messages": 4, "keep": 3})
    await publish(broker, topic, *"123456")
    kept = RedisSubscription(start="kept")
    async with (
        aclosing(await broker.consume(topic, queue="new")) as new,
        aclosing(await broker.consume(topic, queue="kept", native=kept)) as consumer,
    ):
        assert [body for body, _ in await take(consumer, 3)] == ["4", "5", "6"]
        await publish(broker, topic, "7")
        assert await take(new, 1) == [("7", 1)]


async def test_a_topic_that_shall_keep_nothing_is_not_made(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    broker = await open_broker({"keep": 0})
    await publish(broker, topic, "1")
    assert not await ask(redis_server, "EXISTS", stream(topic))


async def test_messages_kept_for_nobody_leave_room_for_a_queue(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker({"max_messages": 3, "keep": 3})
    await publish(broker, topic, "1", "2", "3")
    async with aclosing(await broker.consume(topic, queue="q")) as consumer:
        await publish(broker, topic, "4")
        assert await take(consumer, 1) == [("4", 1)]


async def test_a_crashed_subscription_without_a_queue_is_forgotten(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    async with FaultProxy(redis_server.address) as proxy:
        options = {"forget_after": 1, "max_messages": 3}
        crashing = await open_broker(options, addresses=(proxy.address,), timeout=0.3)
        broker = await open_broker(options)
        await crashing.consume(topic)
        await publish(broker, topic, "1", "2", "3")
        async with aclosing(await broker.consume(topic)) as living:
            await proxy.stop()
            async with asyncio.timeout(6):
                await broker.publish(topic, Message(body=b"4"), timeout=6)
            assert await take(living, 1) == [("4", 1)]
            groups = await ask(redis_server, "XINFO", "GROUPS", stream(topic))
            assert len(groups) == 1, "only the living one"
            assert living.attached


async def test_closing_a_subscription_without_a_queue_removes_all_of_it(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    broker = await open_broker({"keep": 0})
    async with aclosing(await broker.consume(topic)) as consumer:
        await publish(broker, topic, "1")
        delivery = await hold(consumer)
        await consumer.settle(delivery, Retry(60))
    assert await ask(redis_server, "XINFO", "GROUPS", stream(topic)) == []
    keys = await ask(redis_server, "KEYS", f"*{topic}*")
    assert [key.decode() for key in keys] == [stream(topic)]


async def test_consumers_that_died_leave_no_names_that_matter(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    broker = await open_broker()
    async with aclosing(await broker.consume(topic, queue="q")):
        pass
    assert await ask(redis_server, "XINFO", "CONSUMERS", stream(topic), "queue:q") == []


# the server's bad days


async def test_what_is_published_once_the_server_lost_its_data_is_not_missed(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    broker = await open_broker()
    async with aclosing(await broker.consume(topic, queue="q")) as consumer:
        await publish(broker, topic, "before")
        held = await hold(consumer)
        await redis_server.forget()
        await until(lambda: _published(broker, topic, "after"))  # perhaps before the consumer is back
        assert await take(consumer, 1) == [("after", 1)]
        await consumer.settle(held, Ack())


async def test_a_subscription_without_a_queue_survives_the_loss_of_the_data(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    broker = await open_broker()
    async with aclosing(await broker.consume(topic)) as consumer:
        await redis_server.forget()
        await until(lambda: _true(not consumer.attached))
        await until(lambda: _true(consumer.attached), 5)
        await publish(broker, topic, "after")
        assert await take(consumer, 1) == [("after", 1)]


async def test_a_settlement_waits_for_a_server_that_restarts(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    broker = await open_broker()
    async with aclosing(await broker.consume(topic, queue="q")) as consumer:
        await publish(broker, topic, "one")
        delivery = await hold(consumer)
        await redis_server.kill()
        settling = asyncio.create_task(consumer.settle(delivery, Ack()))
        await redis_server.start()
        async with asyncio.timeout(5):
            await settling
        pending = await ask(redis_server, "XPENDING", stream(topic), "queue:q")
        assert pending["pending"] == 0


async def test_a_settlement_that_the_server_never_heard_brings_the_message_back(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    async with FaultProxy(redis_server.address) as proxy:
        broker = await open_broker(addresses=(proxy.address,), timeout=0.5)
        async with aclosing(await broker.consume(topic, queue="q", prefetch=1)) as consumer:
            await publish(broker, topic, "one")
            delivery = await hold(consumer)
            await proxy.stop()
            with pytest.raises(BackendUnavailable):
                await consumer.settle(delivery, Ack())
            await proxy.start()
            assert await take(consumer, 1) == [("one", 2)], "and it takes the only place, long before its lease ends"


async def test_a_server_without_a_file_is_complained_about(
    open_broker: OpenBroker, server: Callable[..., RedisServer], topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    forgetful = server("redis", settings={"appendonly": "no"})
    broker = await open_broker(addresses=(forgetful.address,))
    with caplog.at_level(logging.WARNING):
        await broker.consume(topic)
        await broker.consume(topic)
    assert caplog.text.count("append-only file") == 1


# what others wrote, and wrong use


async def test_an_entry_of_another_program_arrives(
    open_broker: OpenBroker, redis_server: RedisServer, topic: str
) -> None:
    broker = await open_broker()
    async with aclosing(await broker.consume(topic, queue="q")) as consumer:
        await ask(redis_server, "XADD", stream(topic), "*", "body", "text", "headers", "no JSON")
        await ask(redis_server, "XADD", stream(topic), "*", "other", "thing")
        assert await take(consumer, 2) == [("text", 1), ("", 1)]


async def test_the_stream_is_readable_by_others(open_broker: OpenBroker, redis_server: RedisServer, topic: str) -> None:
    broker = await open_broker()
    await broker.publish(topic, Message(Headers({"B": "2", "A": "1"}), b"\xff"), key="k", timeout=5)
    ((_, fields),) = await ask(redis_server, "XRANGE", stream(topic), "-", "+")
    assert fields == {b"headers": b'{"A":"1","B":"2"}', b"body": b"\xff", b"key": b"k"}


async def test_topics_and_queues_with_colons_do_not_meet(open_broker: OpenBroker) -> None:
    broker = await open_broker()
    async with (
        aclosing(await broker.consume("a:b", queue="c")) as one,
        aclosing(await broker.consume("b", queue="c:a")) as other,
    ):
        await publish(broker, "a:b", "1")
        await one.settle(await hold(one), Retry())
        await publish(broker, "b", "2")
        assert await take(other, 1) == [("2", 1)]
        assert await take(one, 1) == [("1", 2)]


async def test_options_of_a_subscription_are_checked(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker()
    with pytest.raises(InvalidOption):
        await broker.consume(topic, prefetch=0)
    channels = await open_broker({"mode": "pubsub"})
    with pytest.raises(InvalidOption):
        await channels.consume(topic, native=RedisSubscription())


async def test_a_bad_request_is_not_repeated(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker()
    counts: list[int] = []

    async def refuse(delivery: Delivery[Any]) -> None:
        counts.append(delivery.count)
        raise BadRequest("never")

    async with aclosing(await broker.consume(f"{topic}.dead")) as graves, Dispatcher(broker, topic, refuse, queue="q"):
        await publish(broker, topic, "one")
        assert await take(graves, 1) == [("one", 1)]
    assert counts == [1]


async def test_a_publisher_that_waits_for_room_ends_with_its_broker(open_broker: OpenBroker, topic: str) -> None:
    broker = await open_broker({"max_messages": 1})
    await broker.consume(topic, queue="q")
    await publish(broker, topic, "1")
    waiting = asyncio.create_task(broker.publish(topic, Message(body=b"2"), timeout=30))
    await asyncio.sleep(0)
    await broker.aclose()
    with pytest.raises((BackendUnavailable, Closed)):
        async with asyncio.timeout(5):
            await waiting


async def _true(value: bool) -> bool:
    return value


async def _published(broker: Broker, topic: str, body: str) -> bool:
    with suppress(BackendUnavailable):
        await publish(broker, topic, body)
        return True
    return False
