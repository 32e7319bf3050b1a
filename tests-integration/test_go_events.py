"""Events over Go Micro's default broker, HTTP: from Go to Python, back, and to subscribers in both."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from go_events import EVENT, ON_THE_WIRE, Event, Go, Member, Python, together, until_got
from go_peers import GoProgram, StartGo
from processes import PATIENCE
from pymicro import Service
from pymicro_registry_mdns._registry import MdnsRegistry

BROKER = "micro.http.broker"

#: Events that are shared out at random. That one of two gets none of them by chance is one in a thousand milliards.
MANY = 40


@pytest.fixture
def environment(mesh_environment: dict[str, str]) -> dict[str, str]:
    """Everything as Go Micro has it."""
    return mesh_environment


@pytest.fixture
async def service(environment: dict[str, str]) -> AsyncIterator[Service]:
    """A Python service that publishes and subscribes."""
    async with Service("shop", environ=environment, broker="http") as service:
        yield service


@pytest.fixture
async def publisher(start_go: StartGo) -> GoProgram:
    """A Go program that publishes."""
    return await start_go("publisher")


@pytest.fixture
def start_subscriber(start_go: StartGo, topic: str) -> Callable[..., Any]:
    """Starts a Go service that subscribes, perhaps in a queue."""

    async def start_subscriber(takes: str = "json", queue: str = "") -> GoProgram:
        return await start_go("subscriber", "-topic", topic, "-as", takes, "-queue", queue)

    return start_subscriber


# both ways


@pytest.mark.checklist(35)
async def test_go_publishes_json_to_python(subscribe: Any, publisher: GoProgram, topic: str) -> None:
    received = await subscribe(Event)
    await publisher.ask("wait", topic=topic)
    order = {"as": "json", "topic": topic, "event": ON_THE_WIRE, "metadata": {"Trace": "t1"}}
    assert (await publisher.ask("publish", **order))["error"] is None
    value, headers = await received.first()
    assert value == EVENT
    assert headers.items() >= {"Content-Type": "application/json", "Micro-Topic": topic, "Trace": "t1"}.items()
    assert str(uuid.UUID(headers["Micro-ID"])) == headers["Micro-ID"]


@pytest.mark.checklist(35)
async def test_go_publishes_protobuf_to_python(subscribe: Any, publisher: GoProgram, topic: str) -> None:
    received = await subscribe(StringValue)
    await publisher.ask("wait", topic=topic)
    order = {"as": "protobuf", "topic": topic, "event": {"text": EVENT.text}}
    assert (await publisher.ask("publish", **order))["error"] is None
    value, headers = await received.first()
    assert value == StringValue(value=EVENT.text)
    assert headers.items() >= {"Content-Type": "application/protobuf", "Micro-Topic": topic}.items()


@pytest.mark.checklist(35)
async def test_python_publishes_json_to_go(service: Service, start_subscriber: Any, topic: str) -> None:
    subscriber = await start_subscriber()
    await service.publish(topic, EVENT, metadata={"Trace": "t1"})
    said = await subscriber.event("received")
    assert said["value"] == ON_THE_WIRE
    assert said["headers"].items() >= {"Content-Type": "application/json", "Micro-Topic": topic, "Trace": "t1"}.items()
    assert str(uuid.UUID(said["headers"]["Micro-ID"])) == said["headers"]["Micro-ID"]


@pytest.mark.checklist(35)
async def test_python_publishes_protobuf_to_go(service: Service, start_subscriber: Any, topic: str) -> None:
    subscriber = await start_subscriber("protobuf")
    await service.publish(topic, StringValue(value=EVENT.text), content_type="application/protobuf")
    said = await subscriber.event("received")
    assert said["value"] == EVENT.text
    assert said["headers"].items() >= {"Content-Type": "application/protobuf", "Micro-Topic": topic}.items()


@pytest.mark.checklist(35)
async def test_a_go_publisher_learns_of_a_new_python_subscriber(
    subscribe: Any, start_subscriber: Any, publisher: GoProgram, topic: str
) -> None:
    order = {"as": "json", "topic": topic, "event": ON_THE_WIRE}
    await start_subscriber()
    await publisher.ask("wait", topic=topic)
    await publisher.ask("publish", **order)  # from now on it goes by what it knows, for a minute, and by announcements
    received = await subscribe(Event)
    async with asyncio.timeout(PATIENCE):
        while not received.events:
            await publisher.ask("publish", **order)
            await asyncio.sleep(0.05)


@pytest.mark.checklist(35)
async def test_a_python_publisher_learns_of_a_new_go_subscriber(
    service: Service, subscribe: Any, start_subscriber: Any, topic: str
) -> None:
    received = await subscribe(Event)
    await service.publish(topic, EVENT)
    await received.first()
    subscriber = await start_subscriber()
    async with asyncio.timeout(PATIENCE):  # it announces itself after up to 0.75 s
        while not subscriber.printed[1:]:
            await service.publish(topic, EVENT)
            await asyncio.sleep(0.05)
    assert (await subscriber.event("received"))["value"] == ON_THE_WIRE


# who gets them


Publish = Callable[[int, int], Any]


@pytest.fixture(params=["go", "python"])
async def publish(request: pytest.FixtureRequest, service: Service, publisher: GoProgram, topic: str) -> Publish:
    """Publishes so many numbered events, from Go or from Python, to so many subscribers."""

    async def from_go(times: int, subscribers: int) -> None:
        await publisher.ask("wait", topic=topic, times=subscribers)
        for number in range(times):  # one by one: Go Micro sends at most eight that wait, and with pauses
            order = {"as": "json", "topic": topic, "event": {"number": number}}
            assert (await publisher.ask("publish", **order))["error"] is None

    async def from_python(times: int, subscribers: int) -> None:
        for number in range(times):
            await service.publish(topic, Event("", number, b""))

    return from_go if request.param == "go" else from_python


@pytest.mark.checklist(36)
async def test_without_a_queue_everybody_gets_each_event(
    subscribe: Any, start_subscriber: Any, publish: Publish
) -> None:
    everybody: list[Member] = [Python(await subscribe(Event)), Go(await start_subscriber())]
    everybody += [Python(await subscribe(Event)), Go(await start_subscriber())]
    await publish(5, 4)
    for member in everybody:
        await until_got([member], 5)
    assert [member.numbers for member in everybody] == [Counter(range(5))] * 4


@pytest.mark.checklist(36)
async def test_of_a_queue_one_gets_each_event(subscribe: Any, start_subscriber: Any, publish: Publish) -> None:
    queues: dict[str, list[Member]] = {
        "mixed": [Python(await subscribe(Event, "mixed")), Go(await start_subscriber(queue="mixed"))],
        "go": [Go(await start_subscriber(queue="go")), Go(await start_subscriber(queue="go"))],
        "python": [Python(await subscribe(Event, "python"))],
        "": [Python(await subscribe(Event))],
    }
    await publish(MANY, 6)
    for members in queues.values():
        await until_got(members, MANY)
        assert together(members) == Counter(range(MANY))
        assert all(member.numbers for member in members)


# on the wire


async def request(address: str, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of the answer to an HTTP request."""

    def exchange() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address, timeout=PATIENCE)
        try:
            connection.request(method, path, body or None, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    return await asyncio.to_thread(exchange)


async def subscription_of(registry: MdnsRegistry, topic: str) -> tuple[str, str]:
    """Address and id of the one node that is subscribed to a topic."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for service in await registry.get_service(BROKER):
                for node in service.nodes:
                    if node.metadata["topic"] == topic:
                        return node.address, node.id


def envelope(topic: str, body: bytes, **headers: str) -> bytes:
    """An event as the HTTP broker carries it."""
    return json.dumps({"Header": {"Micro-Topic": topic} | headers, "Body": base64.b64encode(body).decode()}).encode()


@pytest.mark.checklist(37)
async def test_requests_without_sense_are_answered_alike(
    subscribe: Any, start_go: StartGo, mesh_registry: MdnsRegistry, topic: str
) -> None:
    other = f"{topic}-go"
    received = await subscribe(Event)
    subscriber = await start_go("subscriber", "-topic", other)
    answers = []
    for of in (topic, other):
        address, id = await subscription_of(mesh_registry, of)
        answers.append(
            [
                await request(address, "GET", f"/?id={id}"),
                await request(address, "POST", f"/?id={id}", b"not json"),
                await request(address, "POST", f"/?id={id}", b'{"Header":{},"Body":""}'),
                await request(address, "POST", "/?id=unknown", envelope(of, b"{}")),
            ]
        )
    python, go = answers
    assert [status for status, _ in python] == [status for status, _ in go] == [405, 500, 500, 200]
    for (_, mine), (_, theirs) in zip(python[:3], go[:3], strict=True):
        assert {**json.loads(mine), "detail": ""} == {**json.loads(theirs), "detail": ""}
    assert python[3][1] == go[3][1] == b""
    assert received.events == []
    assert not [line for line in subscriber.printed if "received" in line]


@pytest.mark.checklist(41)
async def test_an_event_of_go_without_a_type_is_protobuf_to_python(
    subscribe: Any, publisher: GoProgram, topic: str
) -> None:
    received = await subscribe(StringValue)
    await publisher.ask("wait", topic=topic)
    order = {"as": "bare", "topic": topic, "event": {"text": EVENT.text}}
    assert (await publisher.ask("publish", **order))["error"] is None
    value, headers = await received.first()
    assert value == StringValue(value=EVENT.text)
    assert headers == {"Micro-Topic": topic}


@pytest.mark.checklist(41)
async def test_an_event_without_a_type_is_protobuf_to_both(
    subscribe: Any, start_go: StartGo, mesh_registry: MdnsRegistry, topic: str
) -> None:
    other, body = f"{topic}-go", StringValue(value=EVENT.text).SerializeToString()
    received = await subscribe(StringValue)
    subscriber = await start_go("subscriber", "-topic", other, "-as", "protobuf")
    for of in (topic, other):
        address, id = await subscription_of(mesh_registry, of)
        assert await request(address, "POST", f"/?id={id}", envelope(of, body)) == (200, b"")
    assert (await received.first())[0] == StringValue(value=EVENT.text)
    assert (await subscriber.event("received"))["value"] == EVENT.text
