"""Events between Go and Python by way of a server: items 38 to 40 of the checklist."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from go_events import EVENT, ON_THE_WIRE, Event, Go, Member, Python, together
from go_peers import VERSIONS, GoProgram, StartGo, build
from processes import PATIENCE
from pymicro import Service
from pymicro_testing.servers import NativeServer

#: Events that are shared out. Each member of a queue gets some of so many, by turns or by chance.
MANY = 40

#: The number of events that only find out who listens.
CALL = -1


@dataclass(frozen=True)
class Medium:
    """A broker.

    Attributes:
        item: of the checklist.
        address: how Go programs are told of it, with the server's in place of `{}`.
        versions: of Go Micro that have it; the others cannot be had with a checksum.
        options: of the Python plugin, to be understood by Go.
        queues: whether Go Micro has them.
    """

    item: int
    address: str
    versions: Sequence[str] = tuple(VERSIONS)
    options: Mapping[str, str] = field(default_factory=dict)
    queues: bool = True


MEDIA = {
    "nats": Medium(38, "nats://{}"),
    "rabbitmq": Medium(39, "amqp://guest:guest@{}"),
    "kafka": Medium(40, "kafka://{}", ["v4.11.0"]),
    "redis": Medium(40, "redis://{}", ["v4.11.0"], {"MICRO_BROKER_REDIS_MODE": "pubsub"}, queues=False),
}


def with_brokers(*kinds: str) -> pytest.MarkDecorator:
    """Runs a test with these brokers and each version that has them."""
    marked = [
        pytest.param(version, kind, marks=pytest.mark.checklist(MEDIA[kind].item))
        for kind in kinds
        for version in MEDIA[kind].versions
    ]
    return pytest.mark.parametrize(("go_version", "kind"), marked, indirect=["go_version"])


@pytest.fixture(scope="session")
def go_peer(go_version: str) -> Path:
    """The program with Go Micro's brokers on servers."""
    return build(go_version, backends=True)


@pytest.fixture
def held(server: Callable[..., NativeServer], kind: str) -> NativeServer:
    """The broker's server."""
    return server(kind)


@pytest.fixture
async def service(environment: dict[str, str], held: NativeServer, kind: str) -> AsyncIterator[Service]:
    """A Python service that publishes and subscribes."""
    there = {"MICRO_BROKER": kind, "MICRO_BROKER_ADDRESS": held.address}
    async with Service("shop", environ=environment | there | MEDIA[kind].options) as service:
        yield service


@pytest.fixture
def there(held: NativeServer, kind: str) -> str:
    """The flag by which programs in Go use the broker."""
    return f"-broker={MEDIA[kind].address.format(held.address)}"


@pytest.fixture
async def publisher(start_go: StartGo, there: str) -> GoProgram:
    """A Go program that publishes."""
    return await start_go("publisher", there)


StartSubscriber = Callable[..., Awaitable[GoProgram]]


@pytest.fixture
def start_subscriber(start_go: StartGo, there: str, topic: str) -> StartSubscriber:
    """Starts a Go service that subscribes."""

    async def start_subscriber(*flags: str) -> GoProgram:
        return await start_go("subscriber", there, f"-topic={topic}", *flags)

    return start_subscriber


async def until(heard: Callable[[], bool], publish: Callable[[], Awaitable[None]]) -> None:
    """Publish until somebody heard it: Go says that it subscribed before the server knows."""
    async with asyncio.timeout(PATIENCE):
        while not heard():
            await publish()
            await asyncio.sleep(0.05)


def publishing(publisher: GoProgram, **order: Any) -> Callable[[], Awaitable[None]]:
    """Publishes from Go."""

    async def publish() -> None:
        assert (await publisher.ask("publish", **order))["error"] is None

    return publish


# both ways


@with_brokers(*MEDIA)
async def test_go_publishes_json_to_python(subscribe: Any, publisher: GoProgram, topic: str) -> None:
    received = await subscribe(Event)
    order = {"as": "json", "topic": topic, "event": ON_THE_WIRE, "metadata": {"Trace": "t1"}}
    await until(lambda: bool(received.events), publishing(publisher, **order))
    value, headers = received.events[0]
    assert value == EVENT
    assert headers.items() >= {"Content-Type": "application/json", "Micro-Topic": topic, "Trace": "t1"}.items()
    assert str(uuid.UUID(headers["Micro-ID"])) == headers["Micro-ID"]


@with_brokers(*MEDIA)
async def test_go_publishes_protobuf_to_python(subscribe: Any, publisher: GoProgram, topic: str) -> None:
    received = await subscribe(StringValue)
    order = {"as": "protobuf", "topic": topic, "event": {"text": EVENT.text}}
    await until(lambda: bool(received.events), publishing(publisher, **order))
    value, headers = received.events[0]
    assert value == StringValue(value=EVENT.text)
    assert headers.items() >= {"Content-Type": "application/protobuf", "Micro-Topic": topic}.items()


@with_brokers(*MEDIA)
async def test_python_publishes_json_to_go(service: Service, start_subscriber: StartSubscriber, topic: str) -> None:
    subscriber = await start_subscriber()
    await until(lambda: bool(subscriber.printed[1:]), lambda: service.publish(topic, EVENT, metadata={"Trace": "t1"}))
    said = await subscriber.event("received")
    assert said["value"] == ON_THE_WIRE
    assert said["headers"].items() >= {"Content-Type": "application/json", "Micro-Topic": topic, "Trace": "t1"}.items()
    assert str(uuid.UUID(said["headers"]["Micro-ID"])) == said["headers"]["Micro-ID"]


@with_brokers(*MEDIA)
async def test_python_publishes_protobuf_to_go(service: Service, start_subscriber: StartSubscriber, topic: str) -> None:
    subscriber = await start_subscriber("-as=protobuf")
    event = StringValue(value=EVENT.text)
    await until(
        lambda: bool(subscriber.printed[1:]),
        lambda: service.publish(topic, event, content_type="application/protobuf"),
    )
    said = await subscriber.event("received")
    assert said["value"] == EVENT.text
    assert said["headers"].items() >= {"Content-Type": "application/protobuf", "Micro-Topic": topic}.items()


# who gets them


Publish = Callable[[int], Awaitable[None]]


@pytest.fixture(params=["go", "python"])
async def publish(request: pytest.FixtureRequest, service: Service, publisher: GoProgram, topic: str) -> Publish:
    """Publishes an event of this number, from Go or from Python."""

    async def from_go(number: int) -> None:
        await publishing(publisher, **{"as": "json", "topic": topic, "event": {"number": number}})()

    async def from_python(number: int) -> None:
        await service.publish(topic, Event("", number, b""))

    return from_go if request.param == "go" else from_python


async def until_there(members: Sequence[Member], publish: Publish) -> None:
    """Wait until each of them hears events."""
    await until(lambda: all(member.numbers for member in members), lambda: publish(CALL))


def numbers(members: Sequence[Member]) -> Counter[int]:
    """What all of them together got, but for calls."""
    got = together(members)
    del got[CALL]
    return got


async def until_numbers(members: Sequence[Member], events: int) -> None:
    """Wait until all of them together got so many, but for calls."""
    async with asyncio.timeout(PATIENCE):
        while numbers(members).total() < events:  # noqa: ASYNC110 - members in two languages
            await asyncio.sleep(0.01)


@with_brokers(*MEDIA)
async def test_without_a_queue_everybody_gets_each_event(
    subscribe: Any, start_subscriber: StartSubscriber, publish: Publish
) -> None:
    everybody: list[Member] = [Python(await subscribe(Event)), Go(await start_subscriber())]
    everybody += [Python(await subscribe(Event)), Go(await start_subscriber())]
    await until_there(everybody, publish)
    for number in range(5):
        await publish(number)
    for member in everybody:
        await until_numbers([member], 5)
    assert [numbers([member]) for member in everybody] == [Counter(range(5))] * 4


@with_brokers(*(kind for kind, medium in MEDIA.items() if medium.queues))
async def test_of_a_queue_one_gets_each_event(
    subscribe: Any, start_subscriber: StartSubscriber, publish: Publish, topic: str
) -> None:
    mixed, others = f"{topic}-mixed", f"{topic}-others"  # servers may have queues of one name for all topics
    queues: dict[str, list[Member]] = {
        "mixed": [Python(await subscribe(Event, mixed)), Go(await start_subscriber(f"-queue={mixed}"))],
        "others": [Python(await subscribe(Event, others)), Go(await start_subscriber(f"-queue={others}"))],
        "none": [Python(await subscribe(Event))],
    }
    await until_there([member for members in queues.values() for member in members], publish)
    for number in range(MANY):
        await publish(number)
    for members in queues.values():
        await until_numbers(members, MANY)
        assert numbers(members) == Counter(range(MANY))
        assert all(numbers([member]) for member in members)


# acknowledging


@with_brokers("rabbitmq")
async def test_what_go_did_not_acknowledge_goes_to_python(
    subscribe: Any, start_subscriber: StartSubscriber, service: Service, topic: str
) -> None:
    program = await start_subscriber(f"-queue={topic}", "-acks", "-hold")
    await until(lambda: bool(program.printed[1:]), lambda: service.publish(topic, Event("", CALL, b"")))
    python = Python(await subscribe(Event, topic))
    for number in range(10):
        await service.publish(topic, Event("", number, b""))
    program.signal(signal.SIGKILL)
    await until_numbers([python], 10)
    assert numbers([python]) == Counter(range(10))
    assert CALL in python.numbers, "Go had begun with it"


@with_brokers("rabbitmq")
async def test_what_python_did_not_settle_goes_to_go(
    start_subscriber: StartSubscriber, service: Service, topic: str
) -> None:
    async with service.subscription(topic, Event, queue=topic, manual=True) as deliveries:
        await service.publish(topic, Event("", 0, b""))
        async with asyncio.timeout(PATIENCE):
            delivery = await anext(aiter(deliveries))
        assert delivery.value.number == 0
        program = Go(await start_subscriber(f"-queue={topic}", "-acks"))
        await until(lambda: bool(program.numbers), lambda: service.publish(topic, Event("", CALL, b"")))
    await until_numbers([program], 1)
    assert numbers([program]) == Counter([0])
