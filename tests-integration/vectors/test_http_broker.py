"""The HTTP broker: recorded publishers are served, recorded subscribers published to, as Go's broker does both."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from played import PATIENCE, Line, Played, Turn
from recorded import HttpMessage, Recording, http_messages, unescaped

from pymicro import Service, errors
from pymicro.broker import Subscription
from pymicro.plugins import Build
from pymicro.registry import MemoryCatalog, MemoryRegistry, Node, Registration, ServiceRecord

BROKER = Recording("http_broker.json")
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
SUBSCRIBED = json.loads(BROKER["subscription_service"].data)
NODE_ID: str = SUBSCRIBED["nodes"][0]["id"]


@dataclass
class Event:
    name: str = ""
    n: int = 0


class Registry(MemoryRegistry):
    """Remembers for how long it was told to keep something."""

    ttls: list[float]

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        self.ttls.append(ttl)
        return await super().register(service, ttl=ttl)


class Mesh:
    """Services that find each other, and what they register."""

    def __init__(self) -> None:
        self.catalog = MemoryCatalog()
        self.ttls: list[float] = []

    def _registry(self, build: Build) -> Registry:
        registry = Registry(None, build, catalog=self.catalog)
        registry.ttls = self.ttls
        return registry

    def service(self, name: str) -> Service:
        return Service(
            name,
            environ={},
            transport="memory",
            registry=self._registry,
            broker="http",
            drain_delay=0.0,
        )

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[Registry]:
        async with self._registry(Build()) as registry:
            yield registry

    @asynccontextmanager
    async def go_subscriber(self, *answers: bytes) -> AsyncIterator[Played]:
        """The recorded subscription, where somebody listens who gives recorded answers."""
        async with Played([Turn(1, answer) for answer in answers]).running() as server, self.registry() as registry:
            node = Node(NODE_ID, server.address, SUBSCRIBED["nodes"][0]["metadata"])
            await registry.register(ServiceRecord(SUBSCRIBED["name"], SUBSCRIBED["version"], nodes=(node,)), ttl=60.0)
            yield server


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture
async def publisher(mesh: Mesh) -> AsyncIterator[Service]:
    async with mesh.service("publisher") as service:
        yield service


class Subscribed:
    """A subscription of a service, and how it is reached.

    Attributes:
        events: the subscription, of undecoded bodies.
        record: how the registry knows it.
        node: its node.
    """

    def __init__(self, events: Subscription[Any], record: ServiceRecord) -> None:
        self.events = events
        self.record = record
        [self.node] = record.nodes

    def own(self, name: str) -> bytes:
        """A recorded request, to this subscription instead of the recorded one."""
        assert len(NODE_ID) == len(self.node.id)
        return BROKER[name].data.replace(NODE_ID.encode(), self.node.id.encode())

    async def post(self, *requests: bytes) -> list[HttpMessage]:
        """The answers to requests on one connection."""
        async with Line.to(self.node.address) as line:
            answers = []
            for request in requests:
                await line.say(request)
                answers.append(await line.hear())
            return answers


Subscribe = Callable[[Any], Any]


@pytest.fixture
def subscribe(mesh: Mesh) -> Subscribe:
    """Subscribes to the topic `events`, which are read as a type."""

    @asynccontextmanager
    async def subscribe(type: Any) -> AsyncIterator[Subscribed]:
        async with (
            mesh.service("subscriber") as service,
            service.subscription("events", type, manual=True) as events,
            mesh.registry() as registry,
        ):
            [record] = await registry.get_service("micro.http.broker")
            yield Subscribed(events, record)

    return subscribe


def envelope_of(message: HttpMessage) -> tuple[dict[str, str], bytes]:
    """The event that a request carries: its headers and its body."""
    envelope = json.loads(message.body)
    return envelope["Header"], base64.b64decode(envelope["Body"], validate=True)


# Subscribing


@BROKER.check(["subscription_service"])
async def test_a_subscription_is_registered_as_go_registers_it(name: str, subscribe: Subscribe, mesh: Mesh) -> None:
    async with subscribe(bytes) as subscribed:
        record, node = subscribed.record, subscribed.node
    assert (record.name, record.version) == (SUBSCRIBED["name"], SUBSCRIBED["version"])
    assert (record.metadata, record.endpoints) == ({}, ())
    assert node.metadata == SUBSCRIBED["nodes"][0]["metadata"]
    assert re.fullmatch(f"events-{UUID}", node.id)
    assert re.fullmatch(r"127\.0\.0\.1:[0-9]+", node.address)
    assert mesh.ttls == [BROKER[name].meaning["ttl_s"]]


PUBLISHED = ["publish_json", "publish_protobuf", "publish_broker_raw", "python_publish"]


def both(exchange: str) -> tuple[str, str]:
    return f"{exchange}.request", f"{exchange}.response"


@BROKER.check(PUBLISHED, of=both)
async def test_what_go_publishes_arrives(name: str, subscribe: Subscribe) -> None:
    request = f"{name}.request"
    async with asyncio.timeout(PATIENCE), subscribe(bytes) as subscribed:
        [answer] = await subscribed.post(subscribed.own(request))
        delivery = await anext(subscribed.events)
        await delivery.ack()
    assert_equal(f"{name}.response", answer)
    header, body = envelope_of(http_messages(BROKER[request].data)[0])
    assert (delivery.message.headers, delivery.message.body) == (header, body)
    if name != "python_publish":
        meaning = BROKER[request].meaning
        assert (header, body.hex()) == (meaning["header"], meaning["body_hex"])


def assert_equal(name: str, answer: HttpMessage) -> None:
    """The answer tells a publisher of Go's what the recorded one does."""
    [recorded] = http_messages(BROKER[name].data)
    assert answer.start == recorded.start
    assert answer.body == recorded.body
    if recorded.body:
        assert recorded.headers.items() <= answer.headers.items()


@BROKER.check(["go_received"])
async def test_a_subscriber_sees_what_gos_saw(name: str, subscribe: Subscribe) -> None:
    told = re.fullmatch(r"EVENT (\{.*?\}) (\{.*\})", BROKER[name].text)
    assert told is not None
    async with asyncio.timeout(PATIENCE), subscribe(Event) as subscribed:
        await subscribed.post(subscribed.own("python_publish.request"))
        delivery = await anext(subscribed.events)
        await delivery.ack()
    assert delivery.value == Event(**json.loads(told[1]))
    assert delivery.message.headers == json.loads(told[2])


@BROKER.check(["unknown_id", "no_id"], of=both)
async def test_what_is_for_nobody_is_taken_and_dropped(name: str, subscribe: Subscribe) -> None:
    """The answer has a header that Go does not send: publishers of pymicro's learn from it."""
    async with asyncio.timeout(PATIENCE), subscribe(Event) as subscribed:
        request = BROKER[f"{name}.request"].data
        answer, _ = await subscribed.post(request, subscribed.own("python_publish.request"))
        delivery = await anext(subscribed.events)
        await delivery.ack()
    assert_equal(f"{name}.response", answer)
    assert delivery.value.name == "from-py"


@BROKER.check(["handler_fails"], of=both)
async def test_what_becomes_of_an_event_is_not_told(name: str, subscribe: Subscribe) -> None:
    async with asyncio.timeout(PATIENCE), subscribe(Event) as subscribed:
        [answer] = await subscribed.post(subscribed.own(f"{name}.request"))
        delivery = await anext(subscribed.events)
        await delivery.reject("the handler failed")
    assert delivery.value == Event("fail")
    assert_equal(f"{name}.response", answer)


@BROKER.check(["no_topic", "get"], of=both)
async def test_what_is_no_event_is_refused(name: str, subscribe: Subscribe) -> None:
    async with subscribe(bytes) as subscribed:
        [answer] = await subscribed.post(subscribed.own(f"{name}.request"))
    assert_equal(f"{name}.response", answer)


@BROKER.check(["bad_json"], of=both)
async def test_what_is_no_json_is_refused(name: str, subscribe: Subscribe) -> None:
    """The words for what is wrong with it are each reader's own."""
    async with subscribe(bytes) as subscribed:
        [answer] = await subscribed.post(subscribed.own(f"{name}.request"))
    [recorded] = http_messages(BROKER[f"{name}.response"].data)
    assert (answer.start, answer.headers["content-type"]) == (recorded.start, recorded.headers["content-type"])
    ours, gos = errors.from_wire(answer.body.decode()), errors.from_wire(recorded.body.decode())
    assert (ours.id, ours.code, ours.detail[:28]) == (gos.id, gos.code, gos.detail[:28])
    assert gos.detail[:28] == "Error parsing request body: "


# Publishing

#: What the recorded programs published.
EVENTS: dict[str, dict[str, Any]] = {
    "publish_json": {"event": Event("ev<1>é"), "metadata": {"X-Trace": "abc"}},
    "publish_protobuf": {
        "event": StringValue(value="pbmsg"),
        "metadata": {"X-Trace": "abc"},
        "content_type": "application/protobuf",
    },
    "publish_broker_raw": {"event": b"raw body", "metadata": {"X-Foo": "bar"}},
}


@BROKER.check(EVENTS, of=both)
async def test_events_are_published_as_go_publishes_them(name: str, publisher: Service, mesh: Mesh) -> None:
    async with mesh.go_subscriber(BROKER[f"{name}.response"].data) as server:
        await publisher.publish("events", **EVENTS[name])
        [request] = server.heard
        await publisher.stop()
    [recorded] = http_messages(BROKER[f"{name}.request"].data)
    assert request.start == recorded.start
    assert request.headers == recorded.headers
    (header, body), (gos_header, gos_body) = envelope_of(request), envelope_of(recorded)
    assert body == unescaped(gos_body)
    ids = {header.pop("Micro-ID"), header.pop("Micro-Id")}  # in either spelling, for all versions of Go Micro
    gos_header.pop("Micro-ID", None)  # a UUID; where Go's broker is used without its client, there is none
    assert len(ids) == 1
    assert re.fullmatch(UUID, ids.pop())
    assert header == gos_header


ACCEPTED = ["python_publish", "unknown_id", "no_id", "handler_fails"]


@pytest.mark.parametrize("name", ACCEPTED)
async def test_a_subscriber_of_go_has_taken_what_it_does_not_refuse(
    name: str, publisher: Service, mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    async with mesh.go_subscriber(BROKER[f"{name}.response"].data) as server:
        await publisher.publish("events", Event("x"))
        assert len(server.heard) == 1
        await publisher.stop()
    assert not caplog.records


@pytest.mark.parametrize("name", ["no_topic", "bad_json", "get"])
async def test_the_refusal_of_a_subscriber_of_go_is_logged(
    name: str, publisher: Service, mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    response = BROKER[f"{name}.response"]
    async with mesh.go_subscriber(response.data) as server:
        await publisher.publish("events", Event("x"))
        assert len(server.heard) == 1
        await publisher.stop()
    [recorded] = http_messages(response.data)
    [record] = caplog.records
    assert errors.from_wire(recorded.body.decode()).detail in record.getMessage()


def test_every_vector_has_a_check() -> None:
    assert BROKER.unchecked == set()
