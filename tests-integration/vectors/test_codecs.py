"""Codecs: bodies that Go wrote are read as they were meant, and pymicro writes what Go reads."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from dataclasses import field, make_dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from grpc_tools import protoc
from msgspec import Meta
from recorded import Recording, unescaped

from pymicro.codec import Codec, CodecTable, Envelope, EnvelopeCodec, _plugin
from pymicro.errors import BadRequest, InvalidHandler
from pymicro.plugins import Plugin
from pymicro_codec_protobuf import _plugin as _protobuf_plugin

CODECS = Recording("codecs.json")

CONTENT_TYPES = {
    "json": "application/json",
    "proto": "application/protobuf",
    "json-rpc": "application/json-rpc",
    "proto-rpc": "application/proto-rpc",
    "grpc": "application/grpc",
    "grpc+json": "application/grpc+json",
}


def made(plugin: Plugin) -> Codec | EnvelopeCodec:
    module, _, name = plugin.target.partition(":")
    codec: Codec | EnvelopeCodec = getattr(importlib.import_module(module), name)()
    return codec


PLUGINS = [*_plugin.pymicro_plugins(), *_protobuf_plugin.pymicro_plugins()]
TABLE = CodecTable([(plugin.content_types, partial(made, plugin), plugin.name) for plugin in PLUGINS])


def plain(kind: str) -> Codec:
    """The codec of bodies without an envelope."""
    codec = TABLE.get(CONTENT_TYPES[kind])
    assert isinstance(codec, Codec)
    return codec


def envelope(kind: str) -> EnvelopeCodec:
    codec = TABLE.get(CONTENT_TYPES[kind])
    assert isinstance(codec, EnvelopeCodec)
    return codec


# Types

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
        ("raw", Any, None),
    ],
)
FULL = Plain(
    str='é<&>中\u2028😀"\\/\x01',
    i32=-1,
    big_int=2**53 + 1,
    u64=2**64 - 1,
    dbl=0.1,
    flt=0.1,
    flag=True,
    data=b"\x00\xff",
    inner=Inner("i", 1),
    list=[Inner("a", 1), Inner()],
    labels={"a": "1", "b": "2"},
    by_id={7: Inner("x", 1)},
    ts=datetime(2024, 2, 29, 23, 59, 58, 123457, tzinfo=UTC),
    dur=1_500_000_000,
    any={"a": [1, "x", 1.5], "z": None},
    NoTag="nt",
    raw={"k": [1, 2]},
)

#: Messages that are not `vec.All`.
TOP = {
    "pb_top_string": wrappers_pb2.StringValue,
    "pb_top_int64": wrappers_pb2.Int64Value,
    "pb_top_timestamp": timestamp_pb2.Timestamp,
    "pb_top_struct": struct_pb2.Value,
    "pb_top_empty": empty_pb2.Empty,
    "decode.pb_json.top_string": wrappers_pb2.StringValue,
    "decode.pb_json.top_string_object": wrappers_pb2.StringValue,
}

#: What the values of the untyped vectors are.
UNTYPED = {
    "plain_floats": [1, 1e21, 1e-7, 123456789, -0.0, 1e20, 1e-6],
    "plain_string": "hi",
    "plain_null": None,
    "plain_badutf8": {"x": "a\ufffdb"},
}

#: What `vec.All` imports; a file can be added to the pool when all of these are in it.
IMPORTED = (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The class `vec.All`: a field of each kind."""
    path, here = tmp_path_factory.mktemp("proto") / "set.binpb", Path(__file__).parent
    known = str(files("grpc_tools").joinpath("_proto"))
    assert protoc.main(["protoc", f"-I{here}", f"-I{known}", f"--descriptor_set_out={path}", "codecs.proto"]) == 0
    pool = descriptor_pool.Default()  # messages inside of `Any` are looked for there
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("vec.All"))


@pytest.fixture
def type_of(everything: Any) -> Callable[[str], Any]:
    """The type of a vector's value."""

    def type_of(name: str) -> Any:
        stem = name if name.startswith("decode.") else name.partition(".")[0]
        if stem in TOP:
            return TOP[stem]
        if stem.startswith(("plain_zero", "plain_full", "plain_nan", "decode.plain_json", "decode.json_rpc")):
            return Plain
        if stem in UNTYPED:
            return Any
        return None if stem == "nil_body" else everything

    return type_of


@pytest.fixture
def value_of(type_of: Callable[[str], Any], everything: Any) -> Callable[[str], Any]:
    """The value that a vector was written from."""
    made = {
        "plain_zero": Plain(),
        "plain_full": FULL,
        "nil_body": None,
        **UNTYPED,
        "pb_empty": everything(),
        "pb_scalars": everything(
            str=FULL.str,
            i32=-1,
            big_int=2**53 + 1,
            u64=2**64 - 1,
            s64=-5,
            fx64=7,
            dbl=0.1,
            flt=0.1,
            flag=True,
            data=b"\x00\xff\xfe\x10",
            color=2,
            snake_case_name="sn",
            custom="cu",
        ),
        "pb_nested": everything(
            inner={"s": "i", "n": 1},
            list=[{"s": "a"}, {}, {"n": 2}],
            labels={"k": "v"},
            by_id={7: {"s": "seven"}},
            packed=[1, 300, -1],
            colors=[0, 1, 2],
        ),
        "pb_empty_inner": everything(inner={}, number=0, opt=""),
        "pb_oneof_string": everything(name="n"),
        "pb_oneof_msg": everything(obj={"n": 9}),
        "pb_nan": everything(dbl=math.nan, flt=math.inf),
        "pb_unknown_enum": everything(color=9),
        "pb_top_string": wrappers_pb2.StringValue(value="hi"),
        "pb_top_int64": wrappers_pb2.Int64Value(value=2**53 + 1),
        "pb_top_timestamp": timestamp_pb2.Timestamp(seconds=1709251198, nanos=123456789),
        "pb_top_struct": struct_pb2.Value(string_value="x"),
        "pb_top_empty": empty_pb2.Empty(),
        "pb_wkt_noany": known_types(everything),
        "pb_wkt": known_types(everything, mask={"paths": ["big_int", "inner.s"]}),
    }
    made["pb_wkt"].any.Pack(type(made["pb_nested"].inner)(s="in any", n=1))
    made["pb_wkt"].st.update({"a": 1.5, "b": [True, None, "x"]})
    return lambda name: made[name.partition(".")[0]]


def known_types(everything: Any, **more: Any) -> Any:
    return everything(
        ts={"seconds": 1709251198, "nanos": 123456789},
        dur={"seconds": -1, "nanos": -500_000_000},
        w64={"value": 0},
        ws={"value": "w"},
        empty={},
        **more,
    )


def same(value: Any, other: Any) -> bool:
    """Whether two values are equal, NaN being equal to itself."""
    return bool(value == other) or repr(value) == repr(other)


def fails(vector: Any) -> bool:
    return "error" in vector.meaning


def works(vector: Any) -> bool:
    return not fails(vector)


# Bodies

Values = Callable[[str], Any]
BODIES = CODECS.names(r"(pb|plain|nil)_\w+\.(json|proto)", works)

#: Written otherwise, and with the same meaning.
SPELLED = {
    "plain_zero.json": "empty lists, maps and bytes are not null",
    "plain_full.json": "time has microseconds; the labels of a map keep their order",
    "plain_floats.json": "floats keep their point",
    "plain_badutf8.json": "a replaced byte is written as itself",
    "nil_body.json": "no body is {}, which Go reads; it refuses no body at all",
    "pb_empty_inner.proto": "Go writes a oneof after the other fields; the order means nothing",
    "pb_wkt.json": "a map has no order",
    "pb_nan.proto": "of the many bit patterns that are no number, Go has another one",
}


@CODECS.check(BODIES)
def test_bodies_of_go_are_read(name: str, type_of: Values, value_of: Values) -> None:
    kind = name.rpartition(".")[2]
    assert same(plain(kind).decoder(type_of(name))(CODECS[name].data), value_of(name))


@CODECS.check(BODIES)
def test_bodies_are_written_as_go_writes_them(name: str, type_of: Values, value_of: Values) -> None:
    kind = name.rpartition(".")[2]
    codec, type = plain(kind), type_of(name)
    written = codec.encoder(type)(value_of(name))
    if name not in SPELLED:
        assert written == unescaped(CODECS[name].data)
        return
    assert same(codec.decoder(type)(written), value_of(name))
    if kind == "json" and CODECS[name].data:
        assert essence(json.loads(written)) == essence(json.loads(CODECS[name].data))
    elif kind == "proto":
        assert len(written) == len(CODECS[name].data)


def essence(value: Any) -> Any:
    """JSON as Go's decoder takes it: without zero values, null among them, and with time as Python has it."""
    if isinstance(value, dict):
        return {key: essence(each) for key, each in value.items() if each and each != "0001-01-01T00:00:00Z"}
    if isinstance(value, list):
        return [essence(each) for each in value]
    return {"2024-02-29T23:59:58.123456789Z": "2024-02-29T23:59:58.123457Z"}.get(value, value)


# What cannot be written


@CODECS.check(["plain_nan.json"])
def test_not_a_number_is_refused(name: str) -> None:
    assert fails(CODECS[name])
    for type in (Plain, Any):
        with pytest.raises(BadRequest):
            plain("json").encoder(type)(Plain(dbl=math.nan))


@CODECS.check(["plain_zero.proto"])
def test_other_classes_are_no_messages(name: str) -> None:
    assert fails(CODECS[name])
    with pytest.raises(InvalidHandler):
        plain("proto").encoder(Plain)


@CODECS.check(["pb_bad_utf8.json", "pb_bad_utf8.proto"])
def test_text_that_is_none_gets_into_no_message(name: str, everything: Any) -> None:
    """Go finds out when it writes the message, Python before there is one."""
    assert fails(CODECS[name])
    with pytest.raises(ValueError, match=r"surrogate|UTF-8|utf-8"):
        everything(str="a\udcffb")


# Envelopes

ENVELOPES = CODECS.names(r"(pb|plain|nil)_\w+\.(json|proto)-rpc\.(request|response)", works)

#: As in `SPELLED`; here Go writes messages, too, with fields that have no value.
SPELLED_INSIDE = ("plain_zero", "plain_full")

#: What Go writes into the answer's envelope where the body cannot be written: an empty block.
NO_MESSAGES = {"plain_zero.proto-rpc.response": "no message, so there is no body"}


@CODECS.check([name for name in ENVELOPES if name not in NO_MESSAGES])
def test_envelopes_are_read_and_written(name: str, type_of: Values, value_of: Values) -> None:
    stem, kind, side = name.rsplit(".", 2)
    codec, data = envelope(kind), CODECS[name].data
    wrap, unwrap = getattr(codec, f"wrap_{side}"), getattr(codec, f"unwrap_{side}")
    around, body = unwrap(data)
    named = side == "request" or kind == "proto-rpc"
    assert around == Envelope(id="42", endpoint="Greeter.Hello" if named else "")
    type, value = type_of(name), value_of(name)
    if body or kind == "proto-rpc":
        assert same(codec.inner.decoder(type)(body), value)
    else:
        assert value is None
    written = wrap(around, codec.inner.encoder(type)(value) if value is not None else b"")
    if stem in SPELLED_INSIDE:
        assert essence(json.loads(written)) == essence(json.loads(data))
    else:
        assert written == unescaped(data)


@CODECS.check(NO_MESSAGES)
def test_an_envelope_without_a_body(name: str) -> None:
    assert envelope("proto-rpc").unwrap_response(CODECS[name].data) == (
        Envelope(id="42", endpoint="Greeter.Hello"),
        b"",
    )


@CODECS.check(CODECS.names(r".*\.proto-rpc\.request", fails))
def test_what_go_wrote_before_it_failed_is_no_request(name: str) -> None:
    with pytest.raises(BadRequest, match="it ends after 28 of 32 bytes"):
        envelope("proto-rpc").unwrap_request(CODECS[name].data)


@CODECS.check(["error.json-rpc", "error.proto-rpc"])
def test_error_envelopes(name: str) -> None:
    kind = name.partition(".")[2]
    codec, around = envelope(kind), Envelope(id="42", error='{"id":"x","code":400}')
    if kind == "proto-rpc":
        around.endpoint = "Greeter.Hello"
    assert codec.unwrap_response(CODECS[name].data) == (around, b"")
    assert codec.wrap_response(around, b"") == CODECS[name].data


# Go's readings

#: Where pymicro reads what Go refuses, or otherwise, and why; and what it reads. None: it refuses what Go reads.
DIFFERENT: dict[str, tuple[str, Any]] = {
    "decode.pb_json.top_string_object": (
        "the form in which go-micro before v5.15 wrote messages",
        wrappers_pb2.StringValue(value="hi"),
    ),
    "decode.pb_json.empty": ("no body is an empty message", ...),
    "decode.plain_json.empty": ("no body is a message of defaults", Plain()),
    "decode.plain_json.case": ("names are exact, and others unknown", Plain()),
    "decode.plain_json.surrogate": ("half a character is an error, not replaced", None),
    "decode.plain_json.ts_space": ("RFC 3339 allows the space", Plain(ts=datetime(2024, 3, 1, 1, 59, 58))),
}
READ = CODECS.names(r"decode\.(pb_json|plain_json|pb_bytes)\..*", works)
REFUSED = CODECS.names(r"decode\.(pb_json|plain_json|pb_bytes)\..*", fails)


def decoder_of(name: str, type: Any) -> Callable[[bytes], Any]:
    return plain("proto" if "pb_bytes" in name else "json").decoder(type)


@CODECS.check([name for name in READ if name not in DIFFERENT])
def test_what_go_reads_is_read_as_go_reads_it(name: str, type_of: Values) -> None:
    value = decoder_of(name, type_of(name))(CODECS[name].data)
    if "pb_bytes" in name:
        value.DiscardUnknownFields()
    told = CODECS[name].meaning["go_value_as_json"]
    assert same(value, plain("json").decoder(type_of(name))(told.encode()))


@CODECS.check([name for name in REFUSED if name not in DIFFERENT])
def test_what_go_refuses_is_refused(name: str, type_of: Values) -> None:
    with pytest.raises(BadRequest, match="body does not fit"):
        decoder_of(name, type_of(name))(CODECS[name].data)


@CODECS.check(DIFFERENT)
def test_what_is_read_otherwise(name: str, type_of: Values) -> None:
    _, value = DIFFERENT[name]
    decode = decoder_of(name, type_of(name))
    if value is None:
        with pytest.raises(BadRequest, match="body does not fit"):
            decode(CODECS[name].data)
    else:
        assert decode(CODECS[name].data) == (type_of(name)() if value is ... else value)


@CODECS.check(["decode.json_rpc.int_id"])
def test_a_number_as_id_is_read(name: str) -> None:
    codec = envelope("json-rpc")
    around, body = codec.unwrap_request(CODECS[name].data)
    told = CODECS[name].meaning["go_value_as_json"]
    assert around == Envelope(id="3", endpoint="A.B")
    assert codec.inner.decoder(Plain)(body) == codec.inner.decoder(Plain)(told.encode()) == Plain(str="a")


@CODECS.check(["decode.json_rpc.v2"])
def test_parameters_by_name_are_refused_as_go_refuses_them(name: str) -> None:
    assert fails(CODECS[name])
    with pytest.raises(BadRequest, match="params: expected array"):
        envelope("json-rpc").unwrap_request(CODECS[name].data)


@CODECS.check(["decode.json_rpc.no_params"])
def test_no_parameters_are_no_body(name: str) -> None:
    """Go's codec panics, and the caller waits for nothing."""
    assert fails(CODECS[name])
    assert envelope("json-rpc").unwrap_request(CODECS[name].data) == (Envelope(id="3", endpoint="A.B"), b"")


# What pymicro does not have


@CODECS.check(CODECS.names(r".*\.grpc(\+json)?|decode\.grpc\..*"))
def test_grpc_framing_inside_of_calls_is_not_spoken(name: str) -> None:
    """gRPC has a transport of its own; nobody needs its frames inside of Go Micro's RPC."""
    kind = name.rpartition(".")[2] if not name.startswith("decode.") else "grpc"
    with pytest.raises(BadRequest, match="unsupported Content-Type"):
        TABLE.get(CONTENT_TYPES[kind])


def test_every_vector_has_a_check() -> None:
    assert CODECS.unchecked == set()
