"""JetStream: streams, leases, redelivery, and what the server forgets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import nats
import pytest

from pymicro.broker import Ack, Consumer, Delivery, Dispatcher, Retry, RetryPolicy
from pymicro.errors import BackendRefused, BackendUnavailable, InvalidOption
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro_broker_nats import NatsSubscription
from pymicro_testing.servers import NatsServer

PATIENCE = 10.0
JETSTREAM = {"jetstream": True}


@pytest.fixture
def topic() -> str:
    """A topic that nobody else has."""
    return f"jet.{uuid4().hex}"


@asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[Any]:
    """A client that is not pymicro's."""
    connection = await nats.connect(f"nats://{server.address}")
    try:
        yield connection
    finally:
        await connection.close()


async def publish(broker: Any, topic: str, *bodies: bytes, timeout: float = PATIENCE) -> None:
    for body in bodies:
        await broker.publish(topic, Message(body=body), timeout=timeout)


async def receive(consumer: Consumer, count: int = 1) -> list[Delivery[Any]]:
    found: list[Delivery[Any]] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += await consumer.receive(count - len(found))
    return found


async def take(consumer: Consumer, count: int = 1) -> list[bytes]:
    found = await receive(consumer, count)
    for delivery in found:
        await consumer.settle(delivery, Ack())
    return [delivery.message.body for delivery in found]


async def nothing(consumer: Consumer) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await consumer.receive(1)


async def until_attached(consumer: Consumer, attached: bool) -> None:
    async with asyncio.timeout(PATIENCE):
        while consumer.attached is not attached:  # noqa: ASYNC110  # a consumer has no event for it
            await asyncio.sleep(0.01)


# publishing


async def test_what_is_published_twice_with_one_id_is_there_once(open_broker: Any, topic: str) -> None:
    broker = await open_broker(JETSTREAM)
    consumer = await broker.consume(topic)
    for id in ("one", "one", "two"):
        await broker.publish(topic, Message(Headers({"Nats-Msg-Id": id}), id.encode()), timeout=PATIENCE)
    assert await take(consumer, 2) == [b"one", b"two"]
    await publish(broker, topic, b"same", b"same")
    assert await take(consumer, 2) == [b"same", b"same"]


async def test_a_publisher_waits_for_a_full_stream(open_broker: Any, topic: str) -> None:
    broker = await open_broker({**JETSTREAM, "stream_bytes": 4096})
    consumer = await broker.consume(topic, queue="q")
    await publish(broker, topic, bytes(2000))
    with pytest.raises(BackendUnavailable, match="maximum bytes exceeded"):
        await publish(broker, topic, bytes(2000), timeout=0.3)
    waiting = asyncio.create_task(publish(broker, topic, b"waited"))
    waiting_too = asyncio.create_task(publish(broker, topic, bytes(2000)))
    await asyncio.wait({waiting_too}, timeout=0.1)
    assert not waiting_too.done()
    for _ in range(3):
        await take(consumer)
    await asyncio.gather(waiting, waiting_too)


async def test_a_stream_that_exists_is_used_as_it_is(open_broker: Any, nats_server: NatsServer, topic: str) -> None:
    async with connected(nats_server) as connection:
        jetstream = connection.jetstream()
        await jetstream.add_stream(name=topic.replace(".", "_"), subjects=[f"{topic}.>"])
        broker = await open_broker(JETSTREAM)
        one = await broker.consume(f"{topic}.one", queue="q")
        two = await broker.consume(f"{topic}.two", queue="q")
        await publish(broker, f"{topic}.one", b"1")
        await publish(broker, f"{topic}.two", b"2")
        assert (await take(one), await take(two)) == ([b"1"], [b"2"])
        late = await broker.consume(f"{topic}.one", native=NatsSubscription(deliver="all", ack_wait=7.0))
        assert late.lease == 7.0
        assert await take(late) == [b"1"]


async def test_core_nats_hears_what_is_published_and_is_heard(open_broker: Any, topic: str) -> None:
    core, jetstream = await open_broker(), await open_broker(JETSTREAM)
    lasting, passing = await jetstream.consume(topic, queue="q"), await core.consume(topic)
    await publish(jetstream, topic, b"from jetstream")
    await publish(core, topic, b"from core")
    for consumer in (lasting, passing):
        assert await take(consumer, 2) == [b"from jetstream", b"from core"]


async def test_a_server_without_jetstream_is_told_apart(open_broker: Any, server: Any) -> None:
    plain = server("nats", settings={"jetstream": "disabled"})
    broker = await open_broker(JETSTREAM, addresses=(plain.address,))
    with pytest.raises(BackendRefused, match="JetStream is not enabled"):
        await publish(broker, "orders", b"x")
    with pytest.raises(BackendRefused, match="JetStream is not enabled"):
        await broker.consume("orders")


async def test_native_options_of_others_are_refused(open_broker: Any) -> None:
    with pytest.raises(InvalidOption, match="NatsSubscription"):
        await (await open_broker(JETSTREAM)).consume("orders", native={"deliver": "all"})


# consumers


async def test_a_lease_is_extended_while_the_handler_runs(open_broker: Any, topic: str) -> None:
    one, two = await open_broker({**JETSTREAM, "ack_wait": 1.0}), await open_broker({**JETSTREAM, "ack_wait": 1.0})
    counts: list[int] = []
    done = asyncio.Event()

    async def slow(delivery: Delivery[Any]) -> None:
        counts.append(delivery.count)
        await asyncio.sleep(1.5)
        done.set()

    async with Dispatcher(one, topic, slow, queue="q"), Dispatcher(two, topic, slow, queue="q"):
        await publish(one, topic, b"x")
        async with asyncio.timeout(PATIENCE):
            await done.wait()
    assert counts == [1]


async def test_what_a_dead_consumer_held_goes_to_another(open_broker: Any, topic: str) -> None:
    dying, other = await open_broker({**JETSTREAM, "ack_wait": 1.0}), await open_broker({**JETSTREAM, "ack_wait": 1.0})
    held = await dying.consume(topic, queue="q", prefetch=1)
    await publish(other, topic, b"x")
    await receive(held)
    await dying._link.aclose()  # as a process that is killed: nothing is told
    (again,) = await receive(await other.consume(topic, queue="q"))
    assert (again.message.body, again.count) == (b"x", 2)


async def test_a_poison_message_is_delivered_so_often_and_then_a_dead_letter(open_broker: Any, topic: str) -> None:
    broker = await open_broker(JETSTREAM)
    counts: list[int] = []

    async def fail(delivery: Delivery[Any]) -> None:
        counts.append(delivery.count)
        raise RuntimeError("no")

    dead = await broker.consume(f"{topic}.dead")
    await broker.consume(topic, queue="q")  # keeps the queue: the handlers come and go
    policy = RetryPolicy(max_deliveries=4, delay=0.05)
    await broker.publish(topic, Message(Headers({"X-Trace": "abc"}), b"poison"), key="k", timeout=PATIENCE)
    async with Dispatcher(broker, topic, fail, queue="q", retry=policy):
        (letter,) = await receive(dead)
    assert counts == [1, 2, 3, 4]
    assert (letter.message.body, letter.key, letter.message.headers["X-Trace"]) == (b"poison", "k", "abc")
    assert letter.message.headers["Micro-Dead-Reason"] == "RuntimeError: no"


async def test_a_subscription_without_a_queue_leaves_nothing(
    open_broker: Any, nats_server: NatsServer, topic: str
) -> None:
    async with connected(nats_server) as connection:
        jetstream = connection.jetstream()
        broker = await open_broker(JETSTREAM)
        consumer = await broker.consume(topic)
        stream = await jetstream.find_stream_name_by_subject(topic)
        (info,) = await jetstream.consumers_info(stream)
        assert info.config.inactive_threshold == 300.0
        await publish(broker, topic, b"one", b"two")
        await receive(consumer)
        await consumer.aclose()
        assert await jetstream.consumers_info(stream) == []
        assert (await jetstream.stream_info(stream)).state.messages == 0


async def test_a_queue_outlives_its_consumers_and_keeps_messages(
    open_broker: Any, nats_server: NatsServer, topic: str
) -> None:
    broker = await open_broker(JETSTREAM)
    await (await broker.consume(topic, queue="größe/1")).aclose()
    await publish(broker, topic, b"kept")
    await nats_server.restart()
    consumer = await (await open_broker(JETSTREAM)).consume(topic, queue="größe/1")
    assert await take(consumer) == [b"kept"]


async def test_a_server_that_lost_its_data_is_told_again(
    open_broker: Any, nats_server: NatsServer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await open_broker(JETSTREAM)
    queue, private = await broker.consume(topic, queue="q"), await broker.consume(topic)
    await publish(broker, topic, b"before")
    assert await take(queue) == await take(private) == [b"before"]
    await nats_server.forget()
    await publish(broker, topic, b"perhaps nobody was back yet")
    for consumer in (queue, private):
        await until_attached(consumer, True)
    await publish(broker, topic, b"after")
    for consumer in (queue, private):
        async with asyncio.timeout(PATIENCE):
            while await take(consumer) != [b"after"]:
                pass
    assert caplog.text.count("the server had forgotten the subscription") == 2


async def test_a_consumer_that_is_deleted_comes_back(open_broker: Any, nats_server: NatsServer, topic: str) -> None:
    broker = await open_broker(JETSTREAM)
    consumer = await broker.consume(topic, queue="q")
    await nothing(consumer)  # it has asked for messages
    async with connected(nats_server) as connection:
        jetstream = connection.jetstream()
        await jetstream.delete_consumer(await jetstream.find_stream_name_by_subject(topic), "q")
    await until_attached(consumer, False)
    await until_attached(consumer, True)
    await publish(broker, topic, b"back")
    assert await take(consumer) == [b"back"]


async def test_a_delivery_can_be_settled_after_the_connection_was_lost(
    open_broker: Any, nats_server: NatsServer, topic: str
) -> None:
    broker = await open_broker({**JETSTREAM, "ack_wait": 1.0})
    consumer = await broker.consume(topic, queue="q")
    await publish(broker, topic, b"one")
    (delivery,) = await receive(consumer)
    await nats_server.terminate()  # an orderly end: the server keeps what it lent to whom
    await nats_server.start()
    await consumer.settle(delivery, Ack())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await consumer.receive(1)


async def test_a_settlement_that_cannot_be_told_is_an_error_and_can_be_repeated(
    open_broker: Any, nats_server: NatsServer, topic: str
) -> None:
    broker = await open_broker(JETSTREAM, timeout=0.3)
    consumer = await broker.consume(topic, queue="q")
    await publish(broker, topic, b"one")
    (delivery,) = await receive(consumer)
    await nats_server.pause()
    with pytest.raises(BackendUnavailable, match=r"settling.*within 0.3 s"):
        await consumer.settle(delivery, Retry())
    await nats_server.resume()
    await consumer.settle(delivery, Retry())
    assert (await receive(consumer))[0].count >= 2


async def test_a_message_over_the_subscribers_limit_comes_once_and_is_logged(
    open_broker: Any, nats_server: NatsServer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    small = await open_broker({**JETSTREAM, "ack_wait": 1.0}, limits=Limits(message=1000, headers=1000))
    consumer = await small.consume(topic, queue="q")
    await publish(await open_broker(JETSTREAM), topic, bytes(20_000), b"small")
    assert await take(consumer) == [b"small"]
    async with connected(nats_server) as connection:
        jetstream = connection.jetstream()
        stream = await jetstream.find_stream_name_by_subject(topic)
        info = await jetstream.consumer_info(stream, "q")
        assert (info.num_ack_pending, info.num_pending) == (0, 0)
    assert caplog.text.count("message over the limit dropped") == 1


async def test_a_slow_subscription_holds_no_more_than_its_prefetch(
    open_broker: Any, nats_server: NatsServer, topic: str
) -> None:
    broker = await open_broker(JETSTREAM)
    consumer = await broker.consume(topic, queue="q", prefetch=3)
    await publish(broker, topic, *[b"x"] * 50)
    await receive(consumer, 3)
    await nothing(consumer)
    async with connected(nats_server) as connection:
        jetstream = connection.jetstream()
        info = await jetstream.consumer_info(await jetstream.find_stream_name_by_subject(topic), "q")
    assert (info.num_ack_pending, info.num_pending) == (3, 47)


async def test_requests_that_end_without_a_message_are_made_again(
    open_broker: Any, topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pymicro_broker_nats._pull._EXPIRES", 0.1)
    broker = await open_broker(JETSTREAM)
    consumer = await broker.consume(topic, queue="q")
    with caplog.at_level(logging.INFO), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await consumer.receive(1)
    await publish(broker, topic, b"late")
    assert await take(consumer) == [b"late"]
    assert not caplog.records


async def test_what_lies_here_for_long_is_held_or_left_to_another(open_broker: Any, topic: str) -> None:
    broker = await open_broker({**JETSTREAM, "ack_wait": 1.0})
    consumer = await broker.consume(topic, queue="q")
    receiving = asyncio.create_task(consumer.receive(2))
    await asyncio.wait({receiving}, timeout=0.1)
    receiving.cancel()  # its request stays
    await publish(broker, topic, b"one")
    await asyncio.sleep(0.5)
    (held,) = await receive(consumer)
    assert held.count == 1
    await publish(broker, topic, b"two")
    await consumer.settle(held, Ack())
    await asyncio.sleep(1.6)
    (again,) = await receive(consumer)
    assert again.message.body == b"two"
    await consumer.settle(again, Ack())
    await nothing(consumer)


def test_names_are_one_for_each_topic() -> None:
    from pymicro_broker_nats import _wire

    topics = ["a.b", "a_b", "a=2Eb", "a-b", "größe", "/", "x" * 300, "x" * 301]
    names = [_wire.name_of(topic) for topic in topics]
    assert names[0] == "a=2Eb"
    assert len(set(names)) == len(topics)
    assert all(len(name) <= 255 and not set(name) & set(".*>%/\\ ") for name in names)
    assert json.dumps(names).isascii()


async def test_what_is_kept_stays_in_a_stream_that_was_there_already(
    nats_server: NatsServer, open_broker: Any, topic: str
) -> None:
    broker = await open_broker(JETSTREAM)
    await publish(broker, topic, b"for nobody")
    await broker.publish(topic, Message(body=b"kept"), keep=True, timeout=PATIENCE)
    await nats_server.restart()
    await broker.publish(topic, Message(body=b"kept, too"), keep=True, timeout=PATIENCE)
    consumer = await broker.consume(topic, queue="q", native=NatsSubscription(deliver="all"))
    assert await take(consumer, 2) == [b"kept", b"kept, too"]
    await nothing(consumer)


@pytest.mark.parametrize("retention", ["limits", "workqueue"])
async def test_what_is_kept_goes_to_a_stream_of_the_users_own(
    nats_server: NatsServer, open_broker: Any, topic: str, retention: str
) -> None:
    async with connected(nats_server) as connection:
        name = uuid4().hex
        await connection.jetstream().add_stream(name=name, subjects=[topic], retention=retention)
        broker = await open_broker(JETSTREAM)
        await broker.publish(topic, Message(body=b"kept"), keep=True, timeout=PATIENCE)
        info = await connection.jetstream().stream_info(name)
    assert (info.state.messages, info.state.consumer_count) == (1, 0)
