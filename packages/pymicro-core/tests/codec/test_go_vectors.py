"""What go-micro wrote is read as it was meant, and what it reads is written."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import field, make_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta

from pymicro.codec import Envelope, JsonCodec, JsonRpcCodec
from pymicro.errors import BadRequest

VECTORS = {
    vector["name"]: vector
    for vector in json.loads((Path(__file__).parent / "data" / "go_json.json").read_text())["vectors"]
}

#: Messages that are not `vec.All`, by the last part of the vector's name.
TOP = {"string": "StringValue", "int64": "Int64Value", "timestamp": "Timestamp", "struct": "Value", "empty": "Empty"}

#: Where pymicro reads what Go refuses, or the other way round, and why.
DIFFERENT = {
    "decode.pb_json.top_string_object": "the form in which go-micro before v5.15 wrote messages",
    "decode.pb_json.empty": "no body is an empty message",
    "decode.plain_json.empty": "no body is a message of defaults",
    "decode.plain_json.case": "names are exact",
    "decode.plain_json.surrogate": "half a character is an error, not replaced",
    "decode.plain_json.ts_space": "RFC 3339 allows the space",
}

Inner = make_dataclass("Inner", [("s", str, ""), ("n", int, 0)])
Plain = make_dataclass(
    "Plain",
    [
        ("str", str, ""),
        ("i32", Annotated[int, Meta(ge=-(2**31), lt=2**31)], 0),
        ("big_int", int, 0),
        ("u64", int, 0),
        ("dbl", float, 0.0),
        ("flt", float, 0.0),
        ("flag", bool, False),
        ("data", bytes, b""),
        ("inner", Inner | None, None),
        ("list", list[Inner], field(default_factory=list)),
        ("labels", dict[str, str], field(default_factory=dict)),
        ("by_id", dict[int, Inner], field(default_factory=dict)),
        ("ts", datetime, datetime(1, 1, 1, tzinfo=UTC)),
        ("dur", int, 0),
        ("any", Any, None),
        ("NoTag", str, ""),
    ],
)

Messages = Callable[[str], Any]


def vectors(prefix: str, suffix: str = "") -> list[str]:
    return [name for name in VECTORS if name.startswith(prefix) and name.endswith(suffix)]


def agreed(prefix: str, *, refused: bool) -> list[str]:
    """Vectors that Go and pymicro see alike."""
    wanted = [name for name in vectors(prefix) if ("error" in VECTORS[name].get("meaning", {})) == refused]
    return [name for name in wanted if name not in DIFFERENT]


def body_of(name: str) -> bytes:
    vector = VECTORS[name]
    return vector["text"].encode() if "text" in vector else base64.b64decode(vector["bytes"])


def message_of(name: str, messages: Messages) -> Any:
    stem = name.partition(".json")[0]
    top = TOP.get(stem.removeprefix("pb_top_")) if "pb_top_" in stem else None
    top = "StringValue" if "pb_json.top_string" in name else top
    return messages(f"google.protobuf.{top}" if top else "vec.All")


@pytest.mark.parametrize("name", [name for name in vectors("pb_", ".json") if body_of(name)])
def test_protobuf_messages_are_read_and_written_as_proto3_json(name: str, messages: Messages) -> None:
    codec, cls = JsonCodec(), message_of(name, messages)
    message = codec.decoder(cls)(body_of(name))
    assert json.loads(codec.encoder(cls)(message)) == json.loads(body_of(name))


def test_protobuf_scalars_mean_what_go_meant(messages: Messages) -> None:
    message = JsonCodec().decoder(messages("vec.All"))(body_of("pb_scalars.json"))
    assert (message.big_int, message.u64, message.s64) == (2**53 + 1, 2**64 - 1, -5)
    assert (message.data, message.color, message.custom) == (b"\x00\xff\xfe\x10", 2, "cu")


@pytest.mark.parametrize("name", agreed("decode.pb_json", refused=False))
def test_protobuf_json_that_go_reads(name: str, messages: Messages) -> None:
    decode = JsonCodec().decoder(message_of(name, messages))
    assert decode(body_of(name)) == decode(VECTORS[name]["meaning"]["go_value_as_json"].encode())


@pytest.mark.parametrize("name", agreed("decode.pb_json", refused=True))
def test_protobuf_json_that_go_refuses(name: str, messages: Messages) -> None:
    with pytest.raises(BadRequest, match="body does not fit"):
        JsonCodec().decoder(message_of(name, messages))(body_of(name))


def test_protobuf_json_of_older_go_micro_is_read(messages: Messages) -> None:
    decode = JsonCodec().decoder
    assert decode(messages("google.protobuf.StringValue"))(b'{"value":"hi"}\n').value == "hi"
    message = decode(messages("vec.All"))(b'{"big_int":5,"color":2,"Kind":{"Name":"n"},"ts":{"seconds":1}}\n')
    assert (message.big_int, message.color, message.name, message.ts.seconds) == (5, 2, "n", 1)


@pytest.mark.parametrize("name", agreed("decode.plain_json", refused=False))
def test_plain_json_that_go_reads(name: str) -> None:
    decode = JsonCodec().decoder(Plain)
    assert decode(body_of(name)) == decode(VECTORS[name]["meaning"]["go_value_as_json"].encode())


@pytest.mark.parametrize("name", agreed("decode.plain_json", refused=True))
def test_plain_json_that_go_refuses(name: str) -> None:
    with pytest.raises(BadRequest, match="body does not fit Plain"):
        JsonCodec().decoder(Plain)(body_of(name))


def test_plain_struct_with_nothing_in_it() -> None:
    assert JsonCodec().decoder(Plain)(body_of("plain_zero.json")) == Plain()


def test_plain_struct_with_everything_in_it() -> None:
    value = JsonCodec().decoder(Plain)(body_of("plain_full.json"))
    assert value.str == 'é<&>中\u2028😀"\\/\x01'
    assert (value.i32, value.big_int, value.u64) == (-1, 2**53 + 1, 2**64 - 1)
    assert (value.data, value.inner, value.labels) == (b"\x00\xff", Inner("i", 1), {"a": "1", "b": "2"})
    assert value.list == [Inner("a", 1), Inner()]
    assert value.by_id == {7: Inner("x", 1)}
    assert value.ts == datetime(2024, 2, 29, 23, 59, 58, 123457, tzinfo=UTC)


@pytest.mark.parametrize("name", ["plain_floats", "plain_string", "plain_null", "plain_badutf8", "plain_full"])
def test_untyped_values(name: str) -> None:
    codec = JsonCodec()
    value = codec.decoder(Any)(body_of(f"{name}.json"))
    assert value == json.loads(body_of(f"{name}.json"))
    assert json.loads(codec.encoder(Any)(value)) == value


def test_a_null_body_is_a_struct_of_defaults() -> None:
    assert JsonCodec().decoder(Plain)(b"null\n") == Plain()


STEMS = ["pb_empty", "pb_scalars", "pb_top_string", "pb_top_empty"]


@pytest.mark.parametrize("stem", STEMS)
def test_json_rpc_requests_carry_messages_as_go_structs(stem: str, messages: Messages) -> None:
    codec, cls = JsonRpcCodec(), message_of(f"{stem}.json", messages)
    data = body_of(f"{stem}.json-rpc.request")
    envelope, body = codec.unwrap_request(data)
    assert envelope == Envelope(id="42", endpoint="Greeter.Hello")
    message = codec.inner.decoder(cls)(body)
    assert message == JsonCodec().decoder(cls)(body_of(f"{stem}.json"))
    assert json.loads(codec.wrap_request(envelope, codec.inner.encoder(cls)(message))) == json.loads(data)


@pytest.mark.parametrize("stem", STEMS)
def test_json_rpc_responses_carry_messages_as_go_structs(stem: str, messages: Messages) -> None:
    codec, cls = JsonRpcCodec(), message_of(f"{stem}.json", messages)
    data = body_of(f"{stem}.json-rpc.response")
    envelope, body = codec.unwrap_response(data)
    assert envelope == Envelope(id="42")
    message = codec.inner.decoder(cls)(body)
    assert message == JsonCodec().decoder(cls)(body_of(f"{stem}.json"))
    assert json.loads(codec.wrap_response(envelope, codec.inner.encoder(cls)(message))) == json.loads(data)


@pytest.mark.parametrize("stem", ["plain_zero", "plain_full", "plain_string", "plain_null", "nil_body"])
@pytest.mark.parametrize("kind", ["request", "response"])
def test_json_rpc_around_plain_values_is_written_as_go_writes_it(stem: str, kind: str) -> None:
    codec = JsonRpcCodec()
    wrap, unwrap = getattr(codec, f"wrap_{kind}"), getattr(codec, f"unwrap_{kind}")
    data = body_of(f"{stem}.json-rpc.{kind}")
    envelope, body = unwrap(data)
    assert wrap(envelope, body) == data
    assert codec.inner.decoder(Any)(body or b"null") == codec.inner.decoder(Any)(body_of(f"{stem}.json") or b"null")


def test_json_rpc_errors() -> None:
    codec, data = JsonRpcCodec(), body_of("error.json-rpc")
    envelope, body = codec.unwrap_response(data)
    assert (envelope, body) == (Envelope(id="42", error='{"id":"x","code":400}'), b"")
    assert codec.wrap_response(envelope, body) == data


@pytest.mark.parametrize("name", vectors("http.json_rpc", ".request"))
def test_json_rpc_requests_on_the_wire(name: str) -> None:
    text = json.loads(VECTORS[name]["text"])
    envelope, body = JsonRpcCodec().unwrap_request(body_of(name))
    assert (envelope.id, envelope.endpoint) == (str(text["id"]), text["method"])
    assert json.loads(body or b"null") == (text.get("params") or [None])[0]


@pytest.mark.parametrize("name", vectors("http.json_rpc", ".response"))
def test_json_rpc_responses_on_the_wire(name: str) -> None:
    codec = JsonRpcCodec()
    envelope, body = codec.unwrap_response(body_of(name))
    assert codec.wrap_response(envelope, body) == body_of(name)


def test_json_rpc_with_a_number_as_id() -> None:
    envelope, body = JsonRpcCodec().unwrap_request(body_of("decode.json_rpc.int_id"))
    assert (envelope, body) == (Envelope(id="3", endpoint="A.B"), b'{"str":"a"}')


def test_json_rpc_with_parameters_by_name_is_refused_as_go_refuses_it() -> None:
    with pytest.raises(BadRequest, match="params: expected array"):
        JsonRpcCodec().unwrap_request(body_of("decode.json_rpc.v2"))


def test_json_rpc_without_parameters_is_a_request_without_a_body() -> None:
    envelope, body = JsonRpcCodec().unwrap_request(body_of("decode.json_rpc.no_params"))
    assert (envelope, body) == (Envelope(id="3", endpoint="A.B"), b"")
