"""The NATS transport: recorded calls and streams are served and understood, and pymicro asks for the same."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import nats
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from recorded import Recording, Vector, unescaped
from recorded_service import Go, Greeter, Req, Rsp, Streamer

from pymicro import Service, errors
from pymicro_testing.servers import NatsServer

PATIENCE = 10.0
NATS = Recording("nats_transport.json")
NODE = "vec.greeter"


class Said(NamedTuple):
    """A payload: headers and body."""

    header: dict[str, str]
    body: bytes


def said(data: bytes) -> Said:
    """What is in a payload; a body that is null is empty."""
    envelope = json.loads(data)
    assert set(envelope) == {"Header", "Body"}
    return Said(envelope["Header"], base64.b64decode(envelope["Body"] or "", validate=True))


def steps(exchange: str) -> list[Vector]:
    """What either side said, in the order of time."""
    return [NATS[name] for name in sorted(NATS.names(rf"{exchange}\.\d"))]


def asks(vector: Vector) -> bool:
    return bool(vector.meaning["subject"] == NODE)


def all_of(exchange: str) -> list[str]:
    return NATS.names(rf"{exchange}\..*")


def service(name: str, server: NatsServer, **settings: Any) -> Service:
    return Service(
        name,
        environ={},
        transport="nats",
        transport_address=server.address,
        registry="memory",
        broker="memory",
        drain_delay=0.0,
        **settings,
    )


@pytest.fixture
async def greeter(nats_server: NatsServer) -> AsyncIterator[Go]:
    """The service that was recorded, over NATS."""
    handlers = Greeter(), Streamer()
    greeter = service("ngreeter", nats_server, server_address=NODE)
    for handler in handlers:
        greeter.handle(handler)
    async with greeter:
        yield Go(NODE, *handlers)


@pytest.fixture
async def caller(nats_server: NatsServer) -> AsyncIterator[Service]:
    async with service("caller", nats_server) as caller:
        yield caller


class Peer:
    """A client of NATS that is not pymicro's."""

    def __init__(self, connection: Any, subscription: Any) -> None:
        self.connection = connection
        self._subscription = subscription

    async def say(self, subject: str, data: bytes, reply: str = "") -> None:
        await self.connection.publish(subject, data, reply=reply)

    async def hear(self) -> Any:
        """The next message."""
        return await self._subscription.next_msg(timeout=PATIENCE)


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Peer]:
    """Go's client: the answers to what it says come back to it."""
    connection = await nats.connect(f"nats://{nats_server.address}")
    yield Peer(connection, await connection.subscribe("vec.inbox"))
    await connection.close()


@pytest.fixture
async def node(nats_server: NatsServer) -> AsyncIterator[Peer]:
    """Go's server: it hears what is said to the recorded node."""
    connection = await nats.connect(f"nats://{nats_server.address}")
    peer = Peer(connection, await connection.subscribe(NODE))
    await connection.flush()
    yield peer
    await connection.close()


class Call(NamedTuple):
    """A call that was recorded.

    Attributes:
        endpoint, content_type, request: what is called.
        instead: code and text of the error where the server does otherwise than Go's; None where it does the same.
    """

    endpoint: str = "Greeter.Hello"
    content_type: str = "application/json"
    request: Any = Req("x")
    instead: tuple[int, str] | None = None

    @property
    def response(self) -> Any:
        """The type that a client reads the answer as."""
        return Rsp if isinstance(self.request, Req) else StringValue


PROTOBUF = "application/protobuf"
HIDDEN = 500, "internal error [0-9a-f]+"  # the text of an exception stays in the process that it is of
NO_METHOD = 404, r"ngreeter has no endpoint Greeter\.Nope.*"  # errors are JSON and have a code

CALLS = {
    "unary_json": Call(),
    "unary_protobuf": Call("Greeter.PB", PROTOBUF, StringValue(value="hi")),
    "unary_protobuf_empty": Call("Greeter.PB", PROTOBUF, StringValue()),
    "error_micro": Call("Greeter.Fail"),
    "error_plain": Call("Greeter.FailPlain", instead=HIDDEN),
    "error_unknown_method": Call("Greeter.Nope", instead=NO_METHOD),
    "two_calls": Call(),
}


@NATS.check([*CALLS, "python_two_parallel"], of=lambda exchange: [step.name for step in steps(exchange)])
async def test_what_go_sends_is_served(name: str, greeter: Go, client: Peer) -> None:
    for step in filter(asks, steps(name)):
        assert said(step.data).body.decode() == (step.meaning["body"] or "")
        await client.say(step.meaning["subject"], step.data, "vec.inbox")
    recorded = [said(step.data) for step in steps(name) if not asks(step)]
    heard = [await client.hear() for _ in recorded]
    assert [message.reply for message in heard] == [""] * len(recorded)
    answers = sorted((said(message.data) for message in heard), key=lambda answer: answer.header["Micro-ID"])
    instead = CALLS.get(name, Call()).instead
    for answer, go in zip(answers, recorded, strict=True):
        assert_answer(answer, go, instead)
    calls = [said(step.data).header for step in steps(name) if asks(step)]
    for seen, header in zip(greeter.greeter.seen, calls, strict=instead != NO_METHOD):
        assert seen.headers.items() >= {key.lower(): value for key, value in header.items()}.items()


def assert_answer(answer: Said, go: Said, instead: tuple[int, str] | None) -> None:
    """It tells a Go client what the recorded one does. That an error says, too, what was asked tells it nothing."""
    assert {key: answer.header[key] for key in ("Micro-ID", "X-Micro-ID")} == {
        "Micro-ID": go.header["Micro-ID"],
        "X-Micro-ID": go.header.get("X-Micro-ID", go.header["Micro-ID"]),  # an error of Go's leaves it out
    }
    assert answer.body == go.body
    if go.body:
        assert answer.header["Content-Type"] == go.header["Content-Type"]
    if instead is None:
        assert answer.header.get("Micro-Error", "") == unescaped(go.header.get("Micro-Error", "").encode()).decode()
        return
    error = errors.from_wire(answer.header["Micro-Error"])
    assert (error.code, error.id) == (instead[0], "ngreeter")
    assert re.fullmatch(instead[1], error.detail)


@NATS.check(CALLS, of=all_of)
async def test_what_go_answers_is_understood_and_asked_for_as_go_asks(name: str, caller: Service, node: Peer) -> None:
    call, lines = CALLS[name], iter(NATS[f"{name}.result"].text.splitlines())
    for asked, answered in zip(*[iter(steps(name))] * 2, strict=True):
        calling = asyncio.create_task(
            caller.client.call(
                "ngreeter",
                call.endpoint,
                call.request,
                response=call.response,
                content_type=call.content_type,
                address=NODE,
                timeout=5.0,
            )
        )
        message = await node.hear()
        assert_same_request(message, asked)
        await node.say(message.reply, answered.data)
        value, _, failure = next(lines).removeprefix("RSP ").partition(" ERR ")
        error, _ = json.JSONDecoder().raw_decode(failure)
        if error is None:
            assert await calling == call.response(**fields(json.loads(value)))
            continue
        with pytest.raises(errors.Error) as raised:
            await calling
        expected = errors.from_wire(error)
        assert (type(raised.value), raised.value.id, raised.value.detail) == (
            type(expected),
            expected.id,
            expected.detail,
        )


def fields(value: Any) -> dict[str, Any]:
    """Of an answer that Go printed; that of a protobuf message without its name."""
    return dict(value) if isinstance(value, dict) else {"value": value}


def assert_same_request(message: Any, vector: Vector, *, body: bool = True) -> None:
    """Go's `Accept` means nothing to anybody; `Timeout` is what is left when it is written."""
    ours, theirs = said(message.data), said(vector.data)
    assert (message.subject, bool(message.reply)) == (vector.meaning["subject"], bool(vector.meaning["reply"]))
    ours.header.pop("Micro-Awaits", None)  # pymicro's own, and nothing to Go
    assert ours.header.pop("Micro-Id") == ours.header["Micro-ID"], "in either spelling, for all versions of Go Micro"
    assert theirs.header.pop("Accept")
    assert 0 < int(ours.header.pop("Timeout", "1")) <= int(theirs.header.pop("Timeout", "1"))
    assert ours.header == theirs.header
    if body:
        assert ours.body == theirs.body


STREAMS = {"stream_client_eos": True, "stream_server_eos": False}  # whether Go leaves out the end that pymicro says


@NATS.check(STREAMS, of=lambda stream: [step.name for step in steps(stream)])
async def test_streams_of_go_are_served(name: str, greeter: Go, client: Peer) -> None:
    for step in steps(name):
        if asks(step):
            await client.say(NODE, step.data, "vec.inbox")
            continue
        answer, go = said((await client.hear()).data), said(step.data)
        assert (answer.body, answer.header["Micro-ID"]) == (go.body, go.header["Micro-ID"])
        assert [each.header.get("Micro-Error") for each in (answer, go)] in ([None] * 2, ["EOS"] * 2)
    if STREAMS[name]:
        assert said((await client.hear()).data).header["Micro-Error"] == "EOS"
    assert greeter.streamer.requests == names_in(name)


def names_in(stream: str) -> list[str]:
    """What the client of a stream says, without the handshake, whose body is no request."""
    bodies = [said(step.data).body for step in steps(stream) if asks(step)]
    return [json.loads(body)["name"] for body in bodies[1:] if body]


@NATS.check(STREAMS, of=all_of)
async def test_streams_to_go_end_as_they_do_in_go(name: str, caller: Service, node: Peer) -> None:
    log: list[str] = []
    heard = asyncio.Semaphore(0)

    async def requests() -> AsyncIterator[Req]:
        for request in names_in(name):
            log.append("send <nil>")
            yield Req(request)
            await heard.acquire()

    async def play() -> None:
        inbox, ended = "", False
        for at, step in enumerate(steps(name)):
            if not asks(step):
                await node.say(inbox, step.data)
                ended = ended or "Micro-Error" in said(step.data).header
            elif not ended:  # who heard the end need not say that it ends, too
                message = await node.hear()
                inbox = message.reply
                assert_same_request(message, step, body=bool(at))

    told = NATS[f"{name}.result"].text.splitlines()
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        playing = group.create_task(play())
        responses = caller.client.stub("ngreeter", Streamer, address=NODE).echo(requests())
        async for response in responses:
            log.append(f'recv {{"msg":"{response.msg}"}} <nil>')
            heard.release()
            if len(log) == len(told) - 1:  # Go closes here
                await playing
                break
        else:
            log.append('recv {"msg":""} EOF')
        await responses.aclose()
    assert [*log, "close <nil>"] == told


def test_every_vector_has_a_check() -> None:
    assert NATS.unchecked == set()
