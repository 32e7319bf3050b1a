"""Calls and streams between Go and Python by way of a server: item 42 of the checklist."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from go_peers import GoProgram, StartGo, build, pattern
from go_streams import FALL, LEAVE, Number, Range, Streams, Told, opened, received, rounds
from processes import PATIENCE
from pymicro import Service, errors
from pymicro_testing.servers import NatsServer

# Of v4 the transport cannot be had with a checksum.
pytestmark = [
    pytest.mark.checklist(42),
    pytest.mark.parametrize("go_version", ["v5.8.0"], indirect=True, scope="session"),
]

#: Calls at a time.
TOGETHER = 8


@pytest.fixture(scope="session")
def go_peer(go_version: str) -> Path:
    """The program with Go Micro's transports on servers."""
    return build(go_version, backends=True)


@pytest.fixture
def environment(environment: dict[str, str], nats_server: NatsServer) -> dict[str, str]:
    """Python services use NATS, and an address that it chooses."""
    there = {"MICRO_TRANSPORT": "nats", "MICRO_TRANSPORT_ADDRESS": nats_server.address, "MICRO_REGISTRY": "memory"}
    return environment | there | {"MICRO_SERVER_ADDRESS": "", "MICRO_DRAIN_DELAY": "0"}


@pytest.fixture
def there(nats_server: NatsServer) -> str:
    """The flag by which programs in Go use it."""
    return f"-transport=nats://{nats_server.address}"


class Subject:
    """What is sent to one subject.

    Attributes:
        inboxes: where answers are wanted, of each message.
        sent: headers and bodies as they are on the wire.
    """

    def __init__(self) -> None:
        self.inboxes: list[str] = []
        self.sent: list[dict[str, Any]] = []

    async def take(self, message: Any) -> None:
        """One more."""
        self.inboxes.append(message.reply)
        self.sent.append(json.loads(message.data))


@pytest.fixture
async def sniffer(nats_server: NatsServer) -> AsyncIterator[Any]:
    """A connection that hears what others send."""
    connection = await nats.connect(nats_server.address)
    yield connection
    await connection.close()


async def sniffed(sniffer: Any, subject: str) -> Subject:
    """All that is sent to a subject from now on."""
    heard = Subject()
    await sniffer.subscribe(subject, cb=heard.take)
    await sniffer.flush()
    return heard


# from Python to Go


@pytest.fixture
async def go_server(start_go: StartGo, there: str) -> GoProgram:
    """A Go server at a subject that it chose."""
    return await start_go("server", there, "-address=:0")


async def test_calls_to_go(caller: Service, go_server: GoProgram, sniffer: Any) -> None:
    address = go_server.ready["address"]
    subject = await sniffed(sniffer, address)
    call = caller.client.call
    assert await call("greeter", "Greeter.Hello", {"name": "Jöhn"}, address=address) == {"greeting": "Hello Jöhn"}
    how: dict[str, Any] = {"content_type": "application/protobuf", "response": StringValue, "address": address}
    assert await call("greeter", "Greeter.Proto", StringValue(value="x"), **how) == StringValue(value="Hello x")
    how = {"content_type": "application/octet-stream", "response": bytes, "address": address}
    assert await call("greeter", "Greeter.Raw", pattern(300_000), **how) == pattern(300_000)
    await sniffer.flush()
    assert [sorted(sent) for sent in subject.sent] == [["Body", "Header"]] * 3
    headers = subject.sent[0]["Header"]
    assert headers["Micro-Endpoint"] == "Greeter.Hello"
    assert {"Micro-Service", "Micro-ID", "Content-Type", "Timeout"} <= headers.keys()


async def test_errors_of_go_handlers(caller: Service, go_server: GoProgram) -> None:
    address = go_server.ready["address"]
    failure = {"id": "go.micro.test", "code": 400, "detail": "bad <thing> & wörse"}
    with pytest.raises(errors.BadRequest) as bad:
        await caller.client.call("greeter", "Greeter.Fail", failure, address=address)
    assert [bad.value.id, bad.value.code, bad.value.detail] == [*failure.values()]
    with pytest.raises(errors.Error) as plain:
        await caller.client.call("greeter", "Greeter.Plain", {"detail": "just text"}, address=address)
    assert (plain.value.code, plain.value.detail) == (0, "just text")
    with pytest.raises(errors.Error, match="can't find"):
        await caller.client.call("greeter", "Nobody.Hello", {}, address=address)


async def test_calls_to_go_at_one_time(caller: Service, go_server: GoProgram, sniffer: Any) -> None:
    address = go_server.ready["address"]
    subject = await sniffed(sniffer, address)
    meet = [caller.client.call("greeter", "Greeter.Meet", {"size": TOGETHER}, address=address) for _ in range(TOGETHER)]
    await asyncio.gather(*meet)
    assert len(subject.sent) == TOGETHER


async def test_streams_with_go(caller: Service, go_server: GoProgram) -> None:
    streams = caller.client.stub("greeter", Streams, address=go_server.ready["address"])
    told = Told()
    replies = streams.echo(aiter(told))
    async with asyncio.timeout(PATIENCE):
        await rounds(replies, told, 100)
        told.end()
        assert (await go_server.event("returned", endpoint="Streams.Echo"))["error"] is None
        await replies.aclose()  # type: ignore[attr-defined]  # typed as an iterator; it is a generator
        assert [number.value async for number in streams.count(Range(upto=20, pause=20))] == [*range(20)]
        assert await streams.total(numbers(100)) == Number(4950)
        assert [number.value async for number in streams.echo(numbers(1, LEAVE))] == [0]
        with pytest.raises(errors.Conflict, match="no more"):
            await anext(aiter(streams.echo(numbers(0, FALL))))


async def numbers(upto: int, *more: int) -> AsyncIterator[Number]:
    """Those below it, and more."""
    for value in (*range(upto), *more):
        yield Number(value)


# from Go to Python


class Greeter:
    """What Go programs call."""

    async def hello(self, request: dict[str, str]) -> dict[str, str]:
        return {"greeting": f"Hello {request['name']}"}

    async def proto(self, request: StringValue) -> StringValue:
        return StringValue(value=f"Hello {request.value}")

    async def fail(self, detail: str) -> None:
        raise errors.BadRequest(detail, "py.test")

    async def crash(self, detail: str) -> None:
        raise LookupError(detail)

    async def ping(self, number: Number) -> Number:
        return number

    async def double(self, numbers: AsyncIterator[Number]) -> AsyncIterator[Number]:
        async for number in numbers:
            if number.value == FALL:
                raise errors.Conflict("no more", "numbers")
            if number.value == LEAVE:
                return
            yield Number(2 * number.value)

    async def flood(self, upto: Number) -> AsyncIterator[Number]:
        for value in range(upto.value):
            yield Number(value)


@pytest.fixture
async def address(environment: dict[str, str], name: str) -> AsyncIterator[str]:
    """The subject of a Python service."""
    service = Service(name, environ=environment)
    service.handle(Greeter())
    async with service:
        assert service.server.node is not None
        yield service.server.node.address


@pytest.fixture
async def client(start_go: StartGo, there: str, address: str) -> GoProgram:
    """A Go client of that service."""
    return await start_go("client", there, f"-address={address}")


async def test_calls_from_go(client: GoProgram) -> None:
    assert (await client.ask("greet", times=1000, parallel=4))["good"] == 1000
    said = await client.ask("call", endpoint="Greeter.Proto", body="x", **{"as": "string"}, type="application/protobuf")
    assert (said["error"], said["reply"]) == (None, "Hello x")


async def test_errors_reach_go(client: GoProgram) -> None:
    detail = "bad <thing> & wörse"
    said = await client.ask("call", endpoint="Greeter.Fail", body=detail)
    assert said["error"] == {"id": "py.test", "code": 400, "detail": detail, "status": "Bad Request"}
    said = await client.ask("call", endpoint="Greeter.Crash", body=detail)
    assert said["error"]["code"] == 500
    said = await client.ask("call", endpoint="Greeter.Missing", body={})
    assert said["error"]["code"] == 404


async def test_calls_of_go_that_share_an_inbox(start_go: StartGo, there: str, address: str) -> None:
    socket = await start_go("socket", there, f"-address={address}")
    for number in range(TOGETHER):
        headers = {
            "Content-Type": "application/json",
            "Micro-Service": "any",
            "Micro-Endpoint": "Greeter.Ping",
            "Micro-ID": f"{number}",
        }
        sent = await socket.ask("send", headers=headers, body=json.dumps({"value": number}))
        assert sent["error"] is None
    answers = [await socket.ask("receive") for _ in range(TOGETHER)]
    assert [answer["error"] for answer in answers] == [None] * TOGETHER
    numbered = {answer["headers"]["Micro-ID"]: json.loads(answer["body"]) for answer in answers}
    assert numbered == {f"{number}": {"value": number} for number in range(TOGETHER)}


async def test_streams_from_go(client: GoProgram) -> None:
    await opened(client, "Greeter.Double")
    for value in range(100):
        assert (await client.ask("send", body={"value": value}))["error"] is None
        assert await received(client, 1) == ([2 * value], None)
    assert (await client.ask("close"))["error"] is None
    await opened(client, "Greeter.Double", 1, LEAVE)
    assert await received(client, 2) == ([2], "EOF")
    await opened(client, "Greeter.Double", 1, FALL)
    error = {"id": "numbers", "code": 409, "detail": "no more", "status": "Conflict"}
    assert await received(client, 2) == ([2], error)
    await opened(client, "Greeter.Flood", 1000)
    assert await received(client, 1001) == ([*range(1000)], "EOF")


# found by a registry


async def test_nodes_found_by_the_registry(
    environment: dict[str, str], nats_server: NatsServer, start_go: StartGo, there: str, name: str
) -> None:
    registry = f"-registry=nats://{nats_server.address}"
    await start_go("server", there, registry, "-address=:0", f"-name={name}-go")
    by_registry = {"MICRO_REGISTRY": "nats", "MICRO_REGISTRY_ADDRESS": nats_server.address}
    service = Service(name, environ=environment | by_registry)
    service.handle(Greeter())
    async with service, asyncio.timeout(PATIENCE):
        reply = await service.client.call(f"{name}-go", "Greeter.Hello", {"name": "x"})
        assert reply == {"greeting": "Hello x"}
        client = await start_go("client", there, registry, f"-service={name}")
        assert (await client.ask("greet", times=10))["good"] == 10
