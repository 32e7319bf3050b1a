"""The RabbitMQ transport: recorded requests are answered as Go answers them, recorded answers are understood."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiormq
import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader
from recorded import Recording
from recorded_service import Go, Greeter, Req, Rsp, Streamer

from pymicro import Service, errors
from pymicro_testing.servers import RabbitmqServer

PATIENCE = 10.0
REPLIES = "amq.rabbitmq.reply-to"
RABBITMQ = Recording("rabbitmq_transport.json")


class Sent(NamedTuple):
    """A message as it was published."""

    exchange: str
    key: str
    properties: Basic.Properties
    body: bytes

    @property
    def headers(self) -> dict[str, Any]:
        return self.properties.headers or {}


def sent(name: str) -> list[Sent]:
    """The messages of a recording."""
    frames, data = [], RABBITMQ[name].data
    while data:
        size, _, frame = unmarshal(data)
        frames.append(frame)
        data = data[size:]
    messages = []
    while frames:
        publish, header = frames.pop(0), frames.pop(0)
        assert isinstance(publish, Basic.Publish)
        assert isinstance(header, ContentHeader)
        body = b""
        while len(body) < header.body_size:
            part = frames.pop(0)
            assert isinstance(part, ContentBody)
            body += part.value
        messages.append(Sent(publish.exchange, publish.routing_key, header.properties, body))
    return messages


def service(name: str, server: RabbitmqServer) -> Service:
    return Service(
        name,
        environ={},
        transport="rabbitmq",
        transport_address=server.address,
        registry="memory",
        broker="memory",
        drain_delay=0.0,
    )


@pytest.fixture
async def greeter(rabbitmq_server: RabbitmqServer) -> AsyncIterator[Go]:
    """The service that was recorded, over RabbitMQ."""
    handlers = Greeter(), Streamer()
    greeter = service("greeter", rabbitmq_server)
    for handler in handlers:
        greeter.handle(handler)
    async with greeter:
        assert greeter.server.node is not None
        yield Go(greeter.server.node.address, *handlers)


@asynccontextmanager
async def consuming(server: RabbitmqServer, queue: str) -> AsyncIterator[tuple[AbstractChannel, asyncio.Queue[Any]]]:
    """A channel, and what arrives at one queue of it."""
    inbox: asyncio.Queue[DeliveredMessage] = asyncio.Queue()

    async def take(message: DeliveredMessage) -> None:
        inbox.put_nowait(message)

    connection = await aiormq.connect(f"amqp://guest:guest@{server.address}/")
    try:
        channel = await connection.channel(publisher_confirms=False)
        if queue != REPLIES:
            await channel.exchange_declare("micro", exchange_type="topic")
            await channel.queue_declare(queue, auto_delete=True)
            await channel.queue_bind(queue, "micro", routing_key=queue)
        await channel.basic_consume(queue, take, no_ack=True)
        yield channel, inbox
    finally:
        await connection.close()


async def replayed(server: RabbitmqServer, address: str, name: str, answers: int) -> list[DeliveredMessage]:
    """What is answered to recorded requests, which are sent to another address than then."""
    async with asyncio.timeout(PATIENCE), consuming(server, REPLIES) as (channel, inbox):
        for message in sent(name):
            assert (message.exchange, message.properties.reply_to) == ("micro", REPLIES)
            await channel.basic_publish(
                message.body, exchange="micro", routing_key=address, properties=message.properties
            )
        return [await inbox.get() for _ in range(answers)]


@RABBITMQ.check(["unary.conn1"])
async def test_recorded_calls_are_answered_as_go_answers_them(
    name: str, greeter: Go, rabbitmq_server: RabbitmqServer
) -> None:
    answers = await replayed(rabbitmq_server, greeter.address, name, 2)
    for answer, go in zip(answers, sent("unary.conn0"), strict=True):
        properties = answer.header.properties
        assert (answer.exchange, answer.body) == (go.exchange, go.body)
        assert properties.correlation_id == go.properties.correlation_id
        assert properties.headers is not None
        assert properties.headers["Content-Type"] == go.headers["Content-Type"]
        assert "Micro-Error" not in properties.headers
    assert [seen.body for seen in greeter.greeter.seen] == [Req("x", 0)] * 2


@RABBITMQ.check(["stream.conn2"])
async def test_a_recorded_call_that_fails(name: str, greeter: Go, rabbitmq_server: RabbitmqServer) -> None:
    (answer,) = await replayed(rabbitmq_server, greeter.address, name, 1)
    error = json.loads((answer.header.properties.headers or {})["Micro-Error"])
    assert (error["id"], error["code"], error["detail"]) == ("go.micro.test", 400, "bad <thing>\nline2")
    assert answer.body == b""


@RABBITMQ.check(["stream.conn3"])
async def test_a_recorded_stream(name: str, greeter: Go, rabbitmq_server: RabbitmqServer) -> None:
    item, end = await replayed(rabbitmq_server, greeter.address, name, 2)
    assert json.loads(item.body) == {"msg": "echo a"}
    assert (end.header.properties.headers or {})["Micro-Error"] == "EOS"
    assert greeter.streamer.requests == ["a", "done"]
    ids = {message.properties.correlation_id for message in sent(name)}
    assert {item.header.properties.correlation_id, end.header.properties.correlation_id} == ids


@RABBITMQ.check(["unary.conn0"])
async def test_a_recorded_answer_is_understood_and_asked_for_as_go_asks(
    name: str, rabbitmq_server: RabbitmqServer
) -> None:
    address = sent("unary.conn1")[0].key
    async with (
        asyncio.timeout(PATIENCE),
        consuming(rabbitmq_server, address) as (channel, inbox),
        service("caller", rabbitmq_server) as caller,
    ):
        for recorded, go in zip(sent(name), sent("unary.conn1"), strict=True):
            call = asyncio.create_task(
                caller.client.call("greeter", "Greeter.Hello", Req("x"), response=Rsp, address=address, timeout=5.0)
            )
            asked = await inbox.get()
            properties = asked.header.properties
            headers = properties.headers or {}
            assert (asked.exchange, asked.routing_key) == (go.exchange, go.key)
            assert json.loads(asked.body) == json.loads(go.body)
            own = {"Accept", "Micro-ID", "Timeout"}  # a header that Go ignores; a number of its own; what is left
            assert {key: headers.get(key) for key in go.headers.keys() - own} == {
                key: value for key, value in go.headers.items() if key not in own
            }
            assert headers["Micro-ID"].isdecimal()
            assert 0 < int(headers["Timeout"]) <= int(go.headers["Timeout"])
            reply = Basic.Properties(correlation_id=properties.correlation_id, headers=recorded.headers)
            await channel.basic_publish(recorded.body, routing_key=properties.reply_to or "", properties=reply)
            assert await call == Rsp("Hello x")


async def test_a_go_server_that_is_gone_is_no_answer(rabbitmq_server: RabbitmqServer) -> None:
    async with asyncio.timeout(PATIENCE), service("caller", rabbitmq_server) as caller:
        with pytest.raises((errors.ConnectionFailed, errors.Unavailable)):
            await caller.client.call("greeter", "Greeter.Hello", Req("x"), response=Rsp, address="nowhere", timeout=5.0)


def test_each_vector_has_a_check() -> None:
    assert not RABBITMQ.unchecked
