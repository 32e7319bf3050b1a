"""Calls over HTTP: recorded requests are served, recorded answers understood, and pymicro's own are the same."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NamedTuple

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from played import PATIENCE, Line, Played, Turn
from recorded import HttpMessage, Recording, Vector, assert_same_request, http_message, http_messages, meant, unescaped
from recorded_service import Go, Req, Rsp

from pymicro import Service, errors
from pymicro.message import Message
from pymicro.plugins import Limits
from pymicro_transport_http._protocol import Parser, RequestParser, ResponseParser

FILES = ("http.json", "http_envelopes.json")
ALL = Recording(*FILES)
HTTP = Recording(*FILES, only="(?!stream_).*")  # `test_http_streams.py` has the others

JSON, PROTOBUF, BYTES = "application/json", "application/protobuf", "application/octet-stream"
JSON_RPC, PROTO_RPC, GRPC = "application/json-rpc", "application/proto-rpc", "application/grpc"
ODD = "é<&>中\u2028😀"


# Bytes and messages


def parsed(vector: Vector, segment: int) -> tuple[Parser, list[Message]]:
    """What the transport makes of recorded bytes that come in segments of a size."""
    request = vector.name.endswith((".request", ".client"))
    parser = (RequestParser if request else ResponseParser)(Limits(), "go:1")
    for at in range(0, len(vector.data), segment):
        parser.feed(vector.data[at : at + segment])
    return parser, [*parser.inbox]


#: The transport refuses the one for its missing header, and the other is a refusal.
REFUSALS = ("no_host.request", "no_host.response")
MESSAGES = [name for name in ALL.names(r".*\.(request|response|client|server)") if name not in REFUSALS]


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("segment", [1, 7, 100_000])
def test_recorded_bytes_are_the_messages_that_they_mean(name: str, segment: int) -> None:
    parser, messages = parsed(ALL[name], segment)
    expected = meant(ALL[name])
    assert parser.fault is None
    assert [message.body for message in messages] == [each.body for each in expected]
    for message, each in zip(messages, expected, strict=True):
        assert each.headers.items() <= message.headers.lowered.items()
        assert {"host", "content-length", "transfer-encoding", "user-agent"}.isdisjoint(message.headers.lowered)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_independent_reader_agrees(name: str) -> None:
    """What the other tests compare with is what the recording says of itself."""
    for read, stated in zip(http_messages(ALL[name].data), meant(ALL[name]), strict=True):
        assert (read.start, read.body) == (stated.start, stated.body)
        assert stated.headers.items() <= read.headers.items()


@pytest.mark.parametrize("segment", [1, 7, 100_000])
def test_the_refusal_of_a_request_without_host(segment: int) -> None:
    parser, messages = parsed(ALL["no_host.response"], segment)
    parser.end()
    text = "400 Bad Request: missing required Host header"
    assert isinstance(parser.fault, errors.BadRequest)
    assert (parser.fault.detail, messages) == (f"{text}: {text}", [])


# Calls


class Instead(NamedTuple):
    """What pymicro's server answers where Go's does something else, and why.

    Attributes:
        why: the reason.
        code: of the error; 200 for an answer.
        text: of the error's detail, a regular expression; of an answer, its body.
    """

    why: str
    code: int
    text: str


class Call(NamedTuple):
    """An exchange of one request and one answer.

    Attributes:
        endpoint, content_type, request: what is called.
        answer: what a client makes of Go's answer; an error is raised.
        instead: None where the server does as Go does.
        arrives: whether the handler is reached.
    """

    endpoint: str
    content_type: str
    request: Any
    answer: Any
    instead: Instead | None = None
    arrives: bool = True

    @property
    def response(self) -> Any:
        """The type that a client reads the answer as."""
        return {Req: Rsp, bytes: bytes, StringValue: StringValue}[type(self.request)]


X = Req("x")
SILENCE = errors.DeadlineExceeded()
HIDDEN = Instead("the text of an exception stays in the process that it is of", 500, "internal error [0-9a-f]+")
NO_METHOD = Instead("errors are JSON and have a code", 404, "greeter has no endpoint Greeter.*")
NO_GRPC = Instead("gRPC framing inside of RPC over HTTP is not supported", 400, "unsupported Content-Type: .*")
NO_PARAMS = Instead("no parameters are an empty request, rather than no answer", 200, '"Hello "')

CALLS: dict[str, Call] = {
    "unary_json": Call("Greeter.Hello", JSON, X, Rsp("Hello x")),
    "unary_json_unicode": Call("Greeter.Hello", JSON, Req(ODD), Rsp(f"Hello {ODD}")),
    "unary_protobuf": Call("Greeter.PB", PROTOBUF, StringValue(value="hi"), StringValue(value="pb:hi")),
    "unary_protobuf_empty": Call("Greeter.PB", PROTOBUF, StringValue(), StringValue()),
    "unary_octet_stream": Call("Greeter.Raw", BYTES, b"ab", b"raw:ab"),
    "unary_json_rpc": Call("Greeter.Hello", JSON_RPC, X, Rsp("Hello x")),
    "unary_proto_rpc": Call("Greeter.PB", PROTO_RPC, StringValue(value="hi"), StringValue(value="pb:hi")),
    "empty_result_json": Call("Greeter.Nothing", JSON, X, Rsp()),
    "error_micro": Call("Greeter.Fail", JSON, X, errors.BadRequest("bad <thing>\nline2", "go.micro.test")),
    "error_micro_unicode": Call(
        "Greeter.FailUni", JSON, X, errors.NotFound('no such ключ é "q" & \t \u2028', "svc.id")
    ),
    "error_plain": Call("Greeter.FailPlain", JSON, X, errors.Error("plain boom"), HIDDEN),
    "error_unknown_handler": Call(
        "Nope.Hello",
        JSON,
        X,
        errors.Error("rpc: can't find service Nope"),
        Instead(NO_METHOD.why, 404, r"greeter has no endpoint Nope\.Hello.*"),
        arrives=False,
    ),
    "error_unknown_method": Call(
        "Greeter.Nope", JSON, X, errors.Error("rpc: can't find method Nope"), NO_METHOD, arrives=False
    ),
    "error_ill_formed": Call(
        "GreeterHello",
        JSON,
        X,
        errors.Error("rpc: service/endpoint request ill-formed: GreeterHello"),
        Instead(NO_METHOD.why, 400, r"endpoint 'GreeterHello' is not Handler\.Method"),
        arrives=False,
    ),
    "panic": Call("Greeter.Panic", JSON, X, SILENCE, HIDDEN),
    "minimal": Call("Greeter.Hello", JSON, Req("m"), Rsp("Hello m")),
    "still_alive": Call("Greeter.Hello", JSON, Req("m"), Rsp("Hello m")),
    "connection_close": Call("Greeter.Hello", JSON, Req("m"), Rsp("Hello m")),
    "unsupported_content_type": Call(
        "Greeter.Hello",
        JSON,
        Req(),
        errors.InternalServerError("unsupported Content-Type: application/json; charset=utf-8", "pymicro.client.codec"),
        Instead("parameters of a content type make no difference", 200, '"Hello "'),
    ),
    "bad_json": Call(
        "Greeter.Hello",
        JSON,
        Req(),
        errors.Error("invalid character 'b' looking for beginning of object key string"),
        Instead(NO_METHOD.why, 400, "body does not fit Req: .*"),
        arrives=False,
    ),
    "no_content_type": Call(
        "Greeter.Hello",
        JSON,
        Req(),
        errors.Error("invalid message"),
        Instead(NO_METHOD.why, 400, r"Greeter\.Hello cannot be called as application/protobuf: .*"),
        arrives=False,
    ),
    "legacy_json_rpc": Call("Greeter.Hello", JSON_RPC, Req("leg"), Rsp("Hello leg")),
    "no_host": Call(
        "Greeter.Hello",
        JSON,
        Req(),
        errors.BadRequest(": ".join(["400 Bad Request: missing required Host header"] * 2), "pymicro.transport.http"),
        arrives=False,
    ),
    "json_rpc_error": Call("Greeter.Fail", JSON_RPC, X, errors.BadRequest("bad <thing>\nline2", "go.micro.test")),
    "json_rpc_error_plain": Call("Greeter.FailPlain", JSON_RPC, X, errors.Error("plain boom"), HIDDEN),
    "proto_rpc_error": Call(
        "Greeter.PBFail",
        PROTO_RPC,
        StringValue(value="x"),
        errors.Error("rpc: can't find method PBFail"),
        NO_METHOD,
        arrives=False,
    ),
    "octet_stream_error": Call("Greeter.RawFail", BYTES, b"x", SILENCE, NO_METHOD, arrives=False),
    "json_rpc_no_params": Call("Greeter.Hello", JSON_RPC, Req(), SILENCE, NO_PARAMS),
    "json_rpc_null_params": Call("Greeter.Hello", JSON_RPC, Req(), SILENCE, NO_PARAMS),
    "json_rpc_int_id": Call("Greeter.Hello", JSON_RPC, Req("i"), Rsp("Hello i")),
    "json_rpc_pb": Call("Greeter.PB", JSON_RPC, StringValue(value="i"), StringValue(value="pb:i")),
    "json_pb": Call("Greeter.PB", JSON, StringValue(value="i"), StringValue(value="pb:i")),
    "unary_grpc_framed": Call("Greeter.PB", GRPC, StringValue(value="hi"), NO_GRPC, NO_GRPC, arrives=False),
    "grpc_error": Call("Greeter.PBFail", GRPC, StringValue(value="x"), NO_GRPC, NO_METHOD, arrives=False),
    "grpc_empty": Call("Greeter.PB", GRPC, StringValue(), NO_GRPC, NO_GRPC, arrives=False),
}


def both(exchange: str) -> tuple[str, str]:
    return f"{exchange}.request", f"{exchange}.response"


@HTTP.check(CALLS, of=both)
async def test_what_go_sends_is_served(name: str, go: Go) -> None:
    call, request = CALLS[name], HTTP[f"{name}.request"]
    async with Line.to(go.address) as line:
        await line.say(request.data)
        answer = await line.hear()
        if "connection" in answer.headers:  # then there is no more, but that nothing more was executed
            assert {rest.headers["micro-executed"] for rest in await line.rest()} <= {"no"}
    if call.arrives:
        [seen] = go.greeter.seen
        assert seen.body == call.request
        assert meant(request)[0].headers.items() <= seen.headers.items()
    else:
        assert go.greeter.seen == []
    if call.instead is None:
        assert_equal(HTTP[f"{name}.response"], answer)
    else:
        assert_instead(call.instead, answer)


def assert_equal(vector: Vector, answer: HttpMessage) -> None:
    """The answer tells a Go client what the recorded one does: by its status, its error and its body."""
    recorded = http_messages(vector.data)[0]
    assert answer.start[:12] == recorded.start[:12]
    assert answer.headers.get("connection") == recorded.headers.get("connection")
    error = unescaped(recorded.headers.get("micro-error", "").encode()).decode()
    assert answer.headers.get("micro-error", "") == error
    if error and recorded.body:  # Go leaves out the id there
        assert json.loads(answer.body) | {"id": ""} == json.loads(recorded.body) | {"error": error}
        return
    assert answer.body == unescaped(recorded.body)
    if recorded.body and vector.name != "legacy_json_rpc.response":  # Go says JSON there, and it is JSON-RPC
        assert answer.headers["content-type"] == recorded.headers["content-type"]


def assert_instead(instead: Instead, answer: HttpMessage) -> None:
    assert answer.start == "HTTP/1.1 200 OK"
    if instead.code == 200:
        assert "micro-error" not in answer.headers
        assert f'"msg":{instead.text}' in answer.body.decode()
        return
    error = errors.from_wire(answer.headers["micro-error"])
    assert (error.code, error.id) == (instead.code, "greeter")
    assert re.fullmatch(instead.text, error.detail)


@pytest.mark.parametrize("name", ["json_rpc_error_plain", "proto_rpc_error"])
async def test_errors_stand_in_the_envelope_too(name: str, go: Go) -> None:
    """Go's clients read the envelope before they look at the header."""
    async with Line.to(go.address) as line:
        await line.say(HTTP[f"{name}.request"].data)
        answer = await line.hear()
    text = answer.headers["micro-error"]
    assert (json.dumps(text) if name.startswith("json") else text).encode() in answer.body
    assert answer.headers["content-type"] == CALLS[name].content_type


def test_every_difference_has_a_reason() -> None:
    assert all(call.instead.why for call in CALLS.values() if call.instead is not None)


@HTTP.check(CALLS, of=both)
async def test_what_go_answers_is_understood(name: str, caller: Service) -> None:
    call, request, response = CALLS[name], HTTP[f"{name}.request"], HTTP[f"{name}.response"]
    hangs_up = b"Connection: close\r\n\r\n400 " in response.data
    async with Played([Turn(1, response.data)], hangs_up=hangs_up).running() as server:

        async def answer() -> Any:
            return await caller.client.call(
                "greeter",
                call.endpoint,
                call.request,
                response=call.response,
                content_type=call.content_type,
                address=server.address,
                timeout=5.0 if response.data else 0.1,
            )

        if isinstance(call.answer, Instead):
            with pytest.raises(errors.BadRequest, match=call.answer.text):
                await answer()
            assert server.heard == []
            return
        if isinstance(call.answer, errors.Error):
            with pytest.raises(type(call.answer)) as caught:
                await answer()
            assert_same_error(call.answer, caught.value)
        else:
            assert await answer() == call.answer
        if name == "connection_close":
            async with asyncio.timeout(PATIENCE):
                await server.client_left.wait()
    assert server.connections == 1
    if request.origin == "go client":
        [sent] = server.heard
        assert_same_request(http_messages(request.data)[0], sent)


def assert_same_error(expected: errors.Error, error: errors.Error) -> None:
    assert type(error) is type(expected)
    if expected is not SILENCE:
        assert (error.id, error.code, error.detail) == (expected.id, expected.code, expected.detail)


TWICE = "two_calls_one_connection"


@HTTP.check([f"{TWICE}.request"])
async def test_two_calls_of_go_on_one_connection_are_served(name: str, go: Go) -> None:
    async with Line.to(go.address) as line:
        await line.say(HTTP[name].data)
        answers = [await line.hear(), await line.hear()]
    assert [answer.body for answer in answers] == [each.body for each in meant(HTTP[f"{TWICE}.response"])]
    assert [seen.body for seen in go.greeter.seen] == [X, X]
    assert [seen.headers["micro-id"] for seen in go.greeter.seen] == ["0", "1"]


@HTTP.check([f"{TWICE}.response"])
async def test_two_calls_to_go_take_one_connection(name: str, caller: Service) -> None:
    async with Played([Turn(1, each) for each in pieces(HTTP[name].data)]).running() as server:
        for _ in range(2):
            answer = await caller.client.call(
                "greeter", "Greeter.Hello", X, response=Rsp, address=server.address, timeout=5.0
            )
            assert answer == Rsp("Hello x")
        assert server.connections == 1
    for recorded, sent in zip(http_messages(HTTP[f"{TWICE}.request"].data), server.heard, strict=True):
        # pymicro numbers what follows on a connection to a Go server, which might lose it otherwise
        assert sent.headers.pop("micro-stream", sent.headers["micro-id"]) == sent.headers["micro-id"]
        assert_same_request(recorded, sent)


def pieces(data: bytes) -> list[bytes]:
    """The bytes of each message."""
    found = []
    while data:
        _, rest = http_message(data)
        found.append(data.removesuffix(rest))
        data = rest
    return found


# Events that come over the port for calls. pymicro's client does not send such.


class Event(NamedTuple):
    """What a subscriber gets of it, and what is answered instead of Go's answer."""

    seen: Req | None
    instead: Instead | None = None


EVENTS = {
    "event_on_rpc_port": Event(Req("ev", 1)),
    "event_unknown_topic": Event(None),
    "event_handler_error": Event(Req("fail"), HIDDEN),
}


@HTTP.check(EVENTS, of=both)
async def test_events_of_go_reach_subscribers(name: str, go: Go) -> None:
    request, response = HTTP[f"{name}.request"], HTTP[f"{name}.response"]
    async with Line.to(go.address) as line:
        await line.say(request.data)
        answer = await line.hear()
    event = EVENTS[name]
    assert [seen.body for seen in go.greeter.seen] == ([] if event.seen is None else [event.seen])
    for seen in go.greeter.seen:
        assert meant(request)[0].headers.items() <= seen.headers.items()
    if event.instead is None:
        assert_equal(response, answer)
    else:
        assert_instead(event.instead, answer)


def test_every_vector_has_a_check() -> None:
    assert HTTP.unchecked == set()
