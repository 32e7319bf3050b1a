"""Addresses, log-in, TLS, and what the server refuses."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import aio_pika
import pytest

from pymicro.broker import Ack
from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import TLS, Build, Limits
from pymicro_broker_rabbitmq import RabbitmqSubscription
from pymicro_broker_rabbitmq._broker import RabbitmqBroker
from pymicro_testing.servers import RabbitmqServer

PATIENCE = 5.0


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


async def works(broker: RabbitmqBroker) -> None:
    """One message there and back."""
    topic = unique("works")
    async with asyncio.timeout(4 * PATIENCE):
        consumer = await broker.consume(topic)
        await broker.publish(topic, Message(body=b"hello"), timeout=PATIENCE)
        (delivery,) = await consumer.receive(1)
        assert delivery.message.body == b"hello"
        assert isinstance(delivery.native, aio_pika.IncomingMessage)
        await consumer.settle(delivery, Ack())


async def refused(broker: RabbitmqBroker, kind: type[Exception], match: str) -> None:
    async with asyncio.timeout(4 * PATIENCE):
        with pytest.raises(kind, match=match):
            await broker.consume(unique("refused"))
        with pytest.raises(kind, match=match):
            await broker.publish("refused", Message(), timeout=1.0)


# Addresses


async def test_the_next_address_is_tried(open_broker: Any, rabbitmq_server: RabbitmqServer) -> None:
    await works(await open_broker(addresses=("127.0.0.1:1", rabbitmq_server.address)))


async def test_nobody_is_there(open_broker: Any) -> None:
    await refused(await open_broker(addresses=("127.0.0.1:1", "127.0.0.1:2")), BackendUnavailable, "127.0.0.1:[12]")


async def test_an_outage_is_logged_once_and_tells_no_password(
    open_broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        broker = await open_broker({"reconnect_interval": 0.01, "password": "secret"}, addresses=("127.0.0.1:1",))
        with pytest.raises(BackendUnavailable):
            await broker.publish("topic", Message(), timeout=0.2)
    assert caplog.text.count("no connection") == 1
    assert "secret" not in caplog.text


async def test_a_server_that_speaks_something_else(open_broker: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + bytes(range(256)))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        host, port = listener.sockets[0].getsockname()
        broker = await open_broker({"connect_timeout": 0.2}, addresses=(f"{host}:{port}",))
        await refused(broker, BackendUnavailable, str(port))
        await broker.aclose()


# Log-in and TLS


async def test_a_wrong_password_is_refused_at_once(open_broker: Any) -> None:
    await refused(await open_broker({"password": "wrong"}), BackendRefused, "ACCESS_REFUSED")


async def test_a_virtual_host_that_is_not_there(open_broker: Any) -> None:
    await refused(await open_broker({"vhost": "nowhere"}), BackendRefused, "nowhere")


async def test_tls_files_that_are_missing_are_found_on_opening() -> None:
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        async with RabbitmqBroker(None, Build(tls=TLS(ca="none.pem"))):
            pass


# What exists already


async def test_an_exchange_of_the_other_kind(open_broker: Any) -> None:
    exchange = unique("exchange")
    await works(await open_broker({"exchange": exchange}))
    other = await open_broker({"exchange": exchange, "durable": True})
    await refused(other, BackendRefused, f"exchange '{exchange}' exists .*--broker_rabbitmq_durable=true")


async def test_a_queue_of_the_other_kind(open_broker: Any) -> None:
    name, topic = unique("queue"), unique("topic")
    await (await open_broker({})).consume(topic, queue=name)
    durable = await open_broker({"durable": True})
    with pytest.raises(BackendRefused, match=f"queue '{name}' exists .*--broker_rabbitmq_durable=true"):
        await durable.consume(topic, native=RabbitmqSubscription(queue_name=name))


async def test_two_topics_do_not_share_a_queue_unawares(open_broker: Any) -> None:
    name, first, second = unique("workers"), unique("first"), unique("second")
    broker = await open_broker()
    await broker.consume(first, queue=name)
    with pytest.raises(ConfigurationError, match=f"'{first}' and '{second}' would share the queue '{name}'"):
        await broker.consume(second, queue=name)
    durable = await open_broker({"durable": True})
    for topic in (first, second):
        await durable.consume(topic, queue=name)


async def test_an_event_of_another_topic_says_so(open_broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    name, first, second = unique("workers"), unique("first"), unique("second")
    broker = await open_broker()
    consumer = await broker.consume(first, queue=name)
    await (await open_broker()).consume(second, queue=name, prefetch=1)
    for _ in range(4):
        await broker.publish(second, Message(), timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        (delivery,) = await consumer.receive(1)
    assert delivery.topic == second
    assert caplog.text.count("the queue has events of another topic too") >= 1


async def test_any_name_will_do_for_a_durable_queue(open_broker: Any) -> None:
    broker, topic = await open_broker({"durable": True}), unique("Größe+@100%")
    for queue in ("a@b", "a+40b", "ß%", "日本"):
        consumer = await broker.consume(topic, queue=queue)
        await broker.publish(topic, Message(body=queue.encode()), timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            (delivery,) = await consumer.receive(1)
            assert delivery.message.body == queue.encode()
            await consumer.settle(delivery, Ack())
            await consumer.aclose()


async def test_what_is_kept_goes_only_where_it_is_wanted(open_broker: Any) -> None:
    topic, broker = unique("kept"), await open_broker({"durable": True})
    async with asyncio.timeout(PATIENCE):
        undertaker = await broker.consume(topic, queue="undertaker")
        await broker.publish(topic, Message(body=b"wanted"), keep=True, timeout=PATIENCE)
        assert [letter.message.body for letter in await undertaker.receive(2)] == [b"wanted"]
        heir = await broker.consume(topic, queue=topic)
        await broker.publish(topic, Message(body=b"for both"), keep=True, timeout=PATIENCE)
        # No queue was made for the first one, since somebody had it.
        assert [letter.message.body for letter in await heir.receive(2)] == [b"for both"]


async def test_without_durable_nothing_is_kept(open_broker: Any) -> None:
    topic, broker = unique("gone"), await open_broker()
    async with asyncio.timeout(PATIENCE):
        await broker.publish(topic, Message(body=b"first"), keep=True, timeout=PATIENCE)
        consumer = await broker.consume(topic, queue=topic)
        await broker.publish(topic, Message(body=b"second"), keep=True, timeout=PATIENCE)
        assert [each.message.body for each in await consumer.receive(2)] == [b"second"]


# What is asked for natively, and limits


async def test_one_consumer_at_a_time(open_broker: Any) -> None:
    topic, broker = unique("single"), await open_broker({"durable": True})
    native = RabbitmqSubscription(queue_arguments={"x-single-active-consumer": True})
    first = await broker.consume(topic, queue="workers", native=native)
    second = await broker.consume(topic, queue="workers", native=native)
    for _ in range(10):
        await broker.publish(topic, Message(), timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        received = 0
        while received < 10:
            received += len(await first.receive(10))
        waiting = asyncio.create_task(second.receive(1))
        await first.aclose()
        assert await waiting


async def test_a_message_that_no_limit_allows_is_refused_on_arrival(
    open_broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    topic = unique("large")
    consumer = await (await open_broker(limits=Limits(message=10))).consume(topic)
    publisher = await open_broker()
    for body in (b"x" * 11, b"x" * 10):
        await publisher.publish(topic, Message(body=body), timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        (delivery,) = await consumer.receive(10)
    assert delivery.message.body == b"x" * 10
    assert "event refused: it is over the limit" in caplog.text


async def test_headers_that_amqp_cannot_have_are_refused(open_broker: Any) -> None:
    broker = await open_broker()
    with pytest.raises(BackendRefused):
        await broker.publish("topic", Message(Headers({"x" * 300: "y"})), timeout=PATIENCE)
    with pytest.raises(TooLarge):
        await broker.publish("topic", Message(Headers({"x": "日" * 60_000})), timeout=PATIENCE)
    await works(broker)
