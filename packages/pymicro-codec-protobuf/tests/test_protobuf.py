"""Protobuf bodies, alone and in go-micro's envelope, to the byte."""

from __future__ import annotations

import base64
import json
import math
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, empty_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.wrappers_pb2 import StringValue

from pymicro.codec import CodecTable, Envelope, JsonCodec
from pymicro.errors import BadRequest, InvalidHandler
from pymicro.plugins import API_VERSION, Build, NoOptions
from pymicro_codec_protobuf import _plugin
from pymicro_codec_protobuf._proto_rpc import ProtoRpcCodec
from pymicro_codec_protobuf._protobuf import ProtobufCodec

VECTORS = {
    vector["name"]: vector
    for vector in json.loads((Path(__file__).parent / "data" / "go_protobuf.json").read_text())["vectors"]
}
WRITTEN = [name for name in VECTORS if name.endswith(".proto") and "error" not in VECTORS[name].get("meaning", {})]
TOP = {
    "pb_top_string": StringValue,
    "pb_top_int64": wrappers_pb2.Int64Value,
    "pb_top_timestamp": timestamp_pb2.Timestamp,
    "pb_top_empty": empty_pb2.Empty,
}


def data_of(name: str) -> bytes:
    return base64.b64decode(VECTORS[name]["bytes"])


def refused(name: str) -> bool:
    return "error" in VECTORS[name].get("meaning", {})


@pytest.mark.parametrize("name", [name for name in WRITTEN if name.startswith("pb_")])
def test_what_go_wrote_is_written_the_same(name: str, everything: Any) -> None:
    codec, cls = ProtobufCodec(), TOP.get(name.removesuffix(".proto"), everything)
    message = codec.decoder(cls)(data_of(name))
    written = codec.encoder(cls)(message)
    if name == "pb_empty_inner.proto":  # Go writes a oneof after the other fields; the order means nothing
        assert sorted(written) == sorted(data_of(name))
        assert codec.decoder(cls)(written) == message
    else:
        assert written == data_of(name)


def test_scalars_mean_what_go_meant(everything: Any) -> None:
    message = ProtobufCodec().decoder(everything)(data_of("pb_scalars.proto"))
    assert message.str == 'é<&>中\u2028😀"\\/\x01'
    assert (message.i32, message.big_int, message.u64, message.s64) == (-1, 2**53 + 1, 2**64 - 1, -5)
    assert (message.data, message.color, message.flag, message.dbl) == (b"\x00\xff\xfe\x10", 2, True, 0.1)


def test_special_numbers_survive(everything: Any) -> None:
    message = ProtobufCodec().decoder(everything)(data_of("pb_nan.proto"))
    assert math.isnan(message.dbl)
    assert message.flt == math.inf


@pytest.mark.parametrize("name", [name for name in VECTORS if name.startswith("decode.pb_bytes") and not refused(name)])
def test_what_go_reads(name: str, everything: Any) -> None:
    message = ProtobufCodec().decoder(everything)(data_of(name))
    message.DiscardUnknownFields()
    assert message == JsonCodec().decoder(everything)(VECTORS[name]["meaning"]["go_value_as_json"].encode())


@pytest.mark.parametrize("name", [name for name in VECTORS if name.startswith("decode.pb_bytes") and refused(name)])
def test_what_go_refuses(name: str, everything: Any) -> None:
    with pytest.raises(BadRequest, match=r"body does not fit vec\.All: ") as caught:
        ProtobufCodec().decoder(everything)(data_of(name))
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("stem", ["pb_empty", "pb_scalars", "pb_top_string", "pb_top_empty"])
@pytest.mark.parametrize("kind", ["request", "response"])
def test_envelopes_as_go_writes_them(stem: str, kind: str, everything: Any) -> None:
    codec, cls, data = ProtoRpcCodec(), TOP.get(stem, everything), data_of(f"{stem}.proto-rpc.{kind}")
    wrap, unwrap = getattr(codec, f"wrap_{kind}"), getattr(codec, f"unwrap_{kind}")
    envelope, body = unwrap(data)
    assert envelope == Envelope(id="42", endpoint="Greeter.Hello")
    assert body == (data_of(f"{stem}.proto") if f"{stem}.proto" in VECTORS else body)
    assert wrap(envelope, codec.inner.encoder(cls)(codec.inner.decoder(cls)(body))) == data


def test_error_envelopes() -> None:
    codec, data = ProtoRpcCodec(), data_of("error.proto-rpc")
    envelope, body = codec.unwrap_response(data)
    assert (envelope, body) == (Envelope(id="42", endpoint="Greeter.Hello", error='{"id":"x","code":400}'), b"")
    assert codec.wrap_response(envelope, body) == data


@pytest.mark.parametrize("name", [name for name in VECTORS if name.startswith("http.proto_rpc")])
def test_envelopes_on_the_wire(name: str) -> None:
    codec, data = ProtoRpcCodec(), data_of(name)
    if name.endswith(".request"):
        envelope, body = codec.unwrap_request(data)
        assert (envelope, body) == (Envelope(id="0", endpoint="Greeter.PBFail"), b"\x0a\x01x")
        assert codec.wrap_request(envelope, body) == data
    else:
        envelope, body = codec.unwrap_response(data)
        assert (envelope, body) == (Envelope(id="0", error="rpc: can't find method PBFail"), b"")
        assert codec.wrap_response(Envelope(id="", error=envelope.error), b"") == data


def test_the_documented_bytes() -> None:
    codec = ProtoRpcCodec(NoOptions(), Build())
    body = codec.inner.encoder(StringValue)(StringValue(value="hi"))
    assert body.hex() == "0a026869"
    request = codec.wrap_request(Envelope(id="42", endpoint="Greeter.PB"), body)
    assert request.hex() == "000000150a0a477265657465722e5042112a00000000000000000000040a026869"
    response = codec.wrap_response(Envelope(id="42"), StringValue(value="pb:hi").SerializeToString())
    assert response.hex() == "00000009112a00000000000000000000070a0570623a6869"


def test_an_envelope_that_was_cut_off_is_refused() -> None:
    codec = ProtoRpcCodec()
    data = codec.wrap_request(Envelope(id="1", endpoint="A.B"), b"body")
    for end in range(len(data)):
        with pytest.raises(BadRequest, match="it ends after"):
            codec.unwrap_request(data[:end])
    with pytest.raises(BadRequest, match="1 bytes after its end"):
        codec.unwrap_request(data + b"x")


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 5_000_000])
def test_a_length_that_the_body_does_not_have_reserves_nothing(length: int) -> None:
    with pytest.raises(BadRequest, match=f"it ends after 8 of {length + 4} bytes"):
        ProtoRpcCodec().unwrap_response(struct.pack(">I", length) + b"abcd")


@pytest.mark.parametrize("id", ["", "x", "-1", "1.5", "1_0", "01", str(2**64), "9" * 5000])
def test_an_id_that_is_no_number_cannot_be_written(id: str) -> None:
    with pytest.raises(BadRequest, match="it must be a number of up to 64 bits"):
        ProtoRpcCodec().wrap_request(Envelope(id=id), b"")


def test_text_that_is_no_unicode_cannot_be_written() -> None:
    with pytest.raises(BadRequest, match="cannot encode a proto-rpc envelope"):
        ProtoRpcCodec().wrap_request(Envelope(id="1", endpoint="\ud800"), b"")


@dataclass
class Hello:
    name: str


@pytest.mark.parametrize("of", [Hello, dict[str, int], str, StringValue | None, Any], ids=str)
def test_only_messages_can_be_read(of: Any) -> None:
    with pytest.raises(InvalidHandler, match=r"carries protobuf messages and bytes, not .*(Hello|dict|str|Str|Any)"):
        ProtobufCodec().decoder(of)


@pytest.mark.parametrize("of", [Hello, dict[str, int], list[StringValue]], ids=str)
def test_only_messages_can_be_written(of: Any) -> None:
    with pytest.raises(InvalidHandler, match="carries protobuf messages and bytes"):
        ProtobufCodec().encoder(of)


def test_values_of_any_message_type_are_written() -> None:
    encode = ProtobufCodec().encoder(Any)
    assert encode(StringValue(value="hi")) == b"\x0a\x02hi"
    assert encode(b"raw") == b"raw"
    with pytest.raises(BadRequest, match="cannot encode Hello"):
        encode(Hello("x"))


def test_a_value_of_another_type_is_not_written() -> None:
    with pytest.raises(BadRequest, match=r"cannot encode google\.protobuf\.StringValue: got str"):
        ProtobufCodec().encoder(StringValue)("hi")


def test_a_message_that_lacks_a_required_field_is_not_written() -> None:
    option = descriptor_pb2.UninterpretedOption.NamePart
    with pytest.raises(BadRequest, match=r"cannot encode google\.protobuf\.UninterpretedOption\.NamePart"):
        ProtobufCodec().encoder(option)(option())


def test_bytes_are_the_body_as_it_is_and_no_body_is_empty() -> None:
    codec = ProtobufCodec()
    assert codec.decoder(bytes)(b"\xff") == codec.encoder(bytes)(b"\xff") == b"\xff"
    assert codec.encoder(None)(None) == b""
    assert codec.decoder(None)(b"\xff") is None
    assert codec.decoder(StringValue)(b"") == StringValue()


#: How many hostile bodies, and which. `PYMICRO_FUZZ=1000000` is a long test.
INPUTS = int(os.environ.get("PYMICRO_FUZZ", "1000"))
SEED = int(os.environ.get("PYMICRO_FUZZ_SEED", "7"))


def mutants(seeds: list[bytes]) -> Iterator[bytes]:
    """The seeds with bytes changed, dropped and added."""
    dice = random.Random(SEED)
    for _ in range(INPUTS):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 5)):
            at = dice.randrange(len(data) + 1)
            data[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        yield bytes(data)


def survives(read: Callable[[bytes], Any], seeds: list[bytes]) -> None:
    faults = 0
    for data in mutants(seeds):
        try:
            read(data)
        except BadRequest:
            faults += 1
    assert INPUTS // 10 < faults <= INPUTS


def test_no_input_raises_anything_but_bad_request(everything: Any) -> None:
    survives(ProtobufCodec().decoder(everything), [data_of(name) for name in WRITTEN if data_of(name)])


@pytest.mark.parametrize("unwrap", ["unwrap_request", "unwrap_response"])
def test_no_envelope_raises_anything_but_bad_request(unwrap: str) -> None:
    seeds = [data_of(name) for name in VECTORS if "proto-rpc" in name or "proto_rpc" in name]
    survives(getattr(ProtoRpcCodec(), unwrap), seeds)


def test_the_plugins_are_described_without_importing_protobuf() -> None:
    code = "import sys, pymicro_codec_protobuf; print([name for name in sys.modules if name.startswith('google')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_plugins_serve_go_micros_content_types() -> None:
    plugins = {plugin.name: plugin for plugin in _plugin.pymicro_plugins()}
    assert {name: plugin.aliases for name, plugin in plugins.items()} == {
        "protobuf": ("proto",),
        "proto_rpc": ("protorpc", "proto-rpc"),
    }
    assert {(plugin.kind, plugin.api[0]) for plugin in plugins.values()} == {("codec", API_VERSION[0])}
    table = CodecTable([(plugins["protobuf"].content_types, ProtobufCodec, "protobuf")])
    assert isinstance(table.get("application/protobuf"), ProtobufCodec)
    assert plugins["proto_rpc"].content_types == ("application/proto-rpc",)
