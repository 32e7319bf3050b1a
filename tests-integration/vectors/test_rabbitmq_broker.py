"""The RabbitMQ broker: what Go published is understood, and what pymicro tells the server is what Go tells it."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from pamqp.base import Frame
from pamqp.commands import Basic
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader
from recorded import Recording

from pymicro.broker import Ack, Delivery, Reject, Retry, Settlement
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build
from pymicro_broker_rabbitmq import RabbitmqBrokerOptions
from pymicro_broker_rabbitmq._broker import RabbitmqBroker
from pymicro_testing.servers import RabbitmqServer
from recorder import Recorder

PATIENCE = 20.0
RABBITMQ = Recording("rabbitmq_broker.json")
TOPIC, QUEUE = "ev.t", "q1"
PUBLISHED = ["publish_json", "publish_protobuf", "publish_broker_raw"]
PARTS = "method", "header", "body"


def parts(exchange: str) -> list[str]:
    return [f"{exchange}.{part}" for part in PARTS]


def frame(name: str) -> Any:
    """The one frame of a recording."""
    size, _, found = unmarshal(RABBITMQ[name].data)
    assert size == len(RABBITMQ[name].data)
    return found


def recorded(exchange: str) -> tuple[dict[str, Any], bytes]:
    """The headers and the body that Go published, in nothing else than the two."""
    header, body = frame(f"{exchange}.header"), frame(f"{exchange}.body")
    assert {name for name, value in header.properties if value} == {"headers"}
    assert header.body_size == len(body.value)
    assert f"props={{'headers': {header.properties.headers}}}" in RABBITMQ[f"{exchange}.header"].meaning
    return header.properties.headers, body.value


@asynccontextmanager
async def broker(address: str, **options: Any) -> AsyncIterator[RabbitmqBroker]:
    async with (
        asyncio.timeout(PATIENCE),
        RabbitmqBroker(RabbitmqBrokerOptions(**options), Build(addresses=(address,), timeout=PATIENCE)) as broker,
    ):
        yield broker


@pytest.fixture
async def channel(rabbitmq_server: RabbitmqServer) -> AsyncIterator[AbstractChannel]:
    """Of a client that is not pymicro's."""
    connection = await aiormq.connect(f"amqp://guest:guest@{rabbitmq_server.address}/")
    yield await connection.channel(publisher_confirms=True)
    await connection.close()


async def delivered(
    server: RabbitmqServer, channel: AbstractChannel, key: str, exchange: str, properties: Basic.Properties, body: bytes
) -> Delivery[Any]:
    """What a subscriber gets of a message."""
    async with (
        broker(server.address) as subscriber,
        aclosing(await subscriber.consume(key, queue=key)) as consumer,
    ):
        await channel.basic_publish(body, exchange=exchange, routing_key=key, properties=properties)
        [delivery] = await consumer.receive(10)
        await consumer.settle(delivery, Ack())
        return delivery


@RABBITMQ.check(PUBLISHED, of=parts)
async def test_what_go_published_is_understood(
    name: str, rabbitmq_server: RabbitmqServer, channel: AbstractChannel
) -> None:
    method = frame(f"{name}.method")
    headers, body = recorded(name)
    properties = frame(f"{name}.header").properties
    delivery = await delivered(rabbitmq_server, channel, method.routing_key, method.exchange, properties, body)
    assert delivery.message == Message(Headers({"Micro-Topic": TOPIC, **headers}), body)


class Frames:
    """What a client told the server."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def all(self) -> list[tuple[bytes, Any]]:
        """Each frame as it was written, and what it is, of one connection after the other."""
        found: list[tuple[bytes, Any]] = []
        for connection in self._recorder.connections:
            data = bytes(connection.sent).removeprefix(b"AMQP\x00\x00\x09\x01")
            while data:
                size, _, each = unmarshal(data)
                found.append((data[:size], each))
                data = data[size:]
        return found

    def one(self, name: str) -> Any:
        """The one frame of this name."""
        [found] = [each for _, each in self.all() if each.name == name]
        return found


def without_channel(data: bytes) -> bytes:
    """A frame without the number of its channel."""
    return data[:1] + data[3:]


@RABBITMQ.check(PUBLISHED, of=parts)
async def test_the_same_is_published(name: str, rabbitmq_server: RabbitmqServer) -> None:
    """But that the id stands in either spelling, for all versions of Go Micro, and the topic always.

    The driver numbers messages in the property `message_id`, which Go overlooks.
    """
    headers, body = recorded(name)
    async with Recorder(rabbitmq_server.address) as recorder:
        async with broker(recorder.address) as publisher:
            await publisher.publish(TOPIC, Message(Headers(headers), body), timeout=PATIENCE)
        frames = Frames(recorder).all()
        [at] = [at for at, (_, each) in enumerate(frames) if isinstance(each, Basic.Publish)]
    (method, _), (_, header), (content, _) = frames[at : at + 3]
    assert without_channel(method) == without_channel(RABBITMQ[f"{name}.method"].data)
    assert without_channel(content) == without_channel(RABBITMQ[f"{name}.body"].data)
    assert isinstance(header, ContentHeader)
    written = Basic.Properties(headers={"Micro-Topic": TOPIC, **headers}, message_id=header.properties.message_id)
    if "Micro-ID" in headers:
        assert written.headers is not None
        written.headers["Micro-Id"] = headers["Micro-ID"]
    assert dict(header.properties) == dict(written)


#: What this side says of each method, as the recording says it of Go's.
SAID: dict[str, Callable[[Any], str]] = {
    "Channel.Open": lambda _: "",
    "Exchange.Declare": lambda each: (
        f"{each.exchange} {each.exchange_type}, durable={each.durable:d} auto_delete={each.auto_delete:d} "
        f"internal={each.internal:d} nowait={each.nowait:d} args {each.arguments}"
    ),
    "Queue.Declare": lambda each: (
        f"queue={each.queue} durable={each.durable:d} exclusive={each.exclusive:d} auto_delete={each.auto_delete:d} "
        f"args {each.arguments}"
    ),
    "Basic.Consume": lambda each: (
        f"queue={each.queue}, consumer_tag=<uuid4> no_local={each.no_local:d} no_ack={each.no_ack:d} "
        f"exclusive={each.exclusive:d}"
    ),
    "Queue.Bind": lambda each: (
        f"queue={each.queue} exchange={each.exchange} key={each.routing_key} args {each.arguments}"
    ),
}


@RABBITMQ.check(["declare"])
async def test_a_subscription_is_declared_as_go_declares_it(name: str, rabbitmq_server: RabbitmqServer) -> None:
    """But that messages are acknowledged; Go asks for more of them than it can handle, and loses them."""
    told = [
        (method, text.replace('q1 or ""', QUEUE).replace("<topic>", TOPIC).replace("no_ack=1", "no_ack=0"))
        for _, method, text in (step if len(step) == 3 else [*step, ""] for step in json.loads(RABBITMQ[name].data))
        if method in SAID
    ]
    async with Recorder(rabbitmq_server.address) as recorder:
        async with broker(recorder.address) as subscriber:
            await (await subscriber.consume(TOPIC, queue=QUEUE)).aclose()
        said = [(each.name, SAID[each.name](each)) for _, each in Frames(recorder).all() if each.name in SAID]
        closed = Frames(recorder).one("Connection.Close")
    assert said == list(dict.fromkeys(told)), "Go opens a channel, and has the exchange, for publishing too"
    assert closed.reply_code == 200


SETTLED: list[tuple[Settlement, type[Frame], dict[str, bool]]] = [
    (Ack(), Basic.Ack, {"multiple": False}),
    (Reject("no"), Basic.Reject, {"requeue": False}),
    (Retry(0.0), Basic.Reject, {"requeue": True}),
]


@RABBITMQ.check(["ack_matrix"])
@pytest.mark.parametrize(("settlement", "method", "says"), SETTLED)
async def test_settling_is_what_go_does_when_told_to(
    name: str,
    settlement: Settlement,
    method: type[Frame],
    says: dict[str, bool],
    rabbitmq_server: RabbitmqServer,
) -> None:
    """As with its options DisableAutoAck, AckOnSuccess and RequeueOnError, and by the older word for Nack."""
    matrix = json.loads(RABBITMQ[name].data)
    assert matrix["DisableAutoAck+AckOnSuccess"] == "no_ack=0: Ack multiple=0 / Nack requeue=0"
    assert matrix["+RequeueOnError"].startswith("Nack requeue=1")
    async with Recorder(rabbitmq_server.address) as recorder:
        async with (
            broker(recorder.address) as both,
            aclosing(await both.consume("ev.settled", queue="settled")) as consumer,
        ):
            await both.publish("ev.settled", Message(body=b"once"), timeout=PATIENCE)
            [delivery] = await consumer.receive(10)
            await consumer.settle(delivery, settlement)
            if isinstance(settlement, Retry):
                [again] = await consumer.receive(10)
                await consumer.settle(again, Ack())
        assert Frames(recorder).one("Basic.Consume").no_ack is False
        settled = Frames(recorder).one(method.name)
    assert {key: getattr(settled, key) for key in says} == says


@RABBITMQ.check(["ack_matrix"])
async def test_a_durable_queue_is_as_gos(name: str, rabbitmq_server: RabbitmqServer) -> None:
    async with Recorder(rabbitmq_server.address) as recorder:
        async with broker(recorder.address, durable=True) as subscriber:
            await (await subscriber.consume(TOPIC, queue="kept")).aclose()
        declared = Frames(recorder).one("Queue.Declare")
    said = f"Queue.Declare durable={declared.durable:d} auto_delete={declared.auto_delete:d}"
    assert said == json.loads(RABBITMQ[name].data)["DurableQueue"]


#: What was published for Go's subscriber.
GIVEN = {
    "received.native_types": Basic.Properties(
        headers={
            "Content-Type": "application/json",
            "Micro-ID": "11111111-2222-4333-8444-555555555555",
            "Micro-Topic": TOPIC,
            "n": 7,
            "ok": True,
        }
    ),
    "received.no_micro_topic": Basic.Properties(headers={"Content-Type": "application/json"}),
    "received.no_headers": Basic.Properties(),
    "received.content_type_property_only": Basic.Properties(content_type="application/json"),
}

#: What pymicro sees and Go does not: other clients than Go Micro's say the type of the body there.
SEEN = {"received.content_type_property_only": {"Content-Type": "application/json"}}


@RABBITMQ.check(GIVEN)
async def test_what_go_received_is_received_here(
    name: str, rabbitmq_server: RabbitmqServer, channel: AbstractChannel
) -> None:
    meaning, body = RABBITMQ[name].meaning, ast.literal_eval(RABBITMQ[name].text).encode()
    delivery = await delivered(rabbitmq_server, channel, meaning["topic"], "micro", GIVEN[name], body)
    assert delivery.topic == meaning["topic"]
    assert delivery.message == Message(Headers({**meaning["headers"], **SEEN.get(name, {})}), body)


@RABBITMQ.check(["without_exchange"])
async def test_what_go_publishes_without_exchange_arrives_at_the_queue_of_that_name(
    name: str, rabbitmq_server: RabbitmqServer, channel: AbstractChannel
) -> None:
    stated = re.match(r'exchange "(.*)" routing key (\S+), headers (.*)', RABBITMQ[name].text)
    assert stated is not None
    assert f"Micro-Topic={stated[2]}" in stated[3]
    headers, body = recorded("publish_json")
    properties = Basic.Properties(headers={**headers, "Micro-Topic": stated[2]})
    delivery = await delivered(rabbitmq_server, channel, stated[2], stated[1], properties, body)
    assert delivery.message == Message(Headers({**headers, "Micro-Topic": stated[2]}), body)


def test_every_vector_has_a_check() -> None:
    assert RABBITMQ.unchecked == set()
