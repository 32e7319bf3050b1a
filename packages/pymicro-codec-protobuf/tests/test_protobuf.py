"""Protobuf bodies, alone and in go-micro's envelope. Those that Go wrote are in `tests-integration/vectors`."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.wrappers_pb2 import StringValue

from pymicro.codec import CodecTable, Envelope
from pymicro.errors import BadRequest, InvalidHandler
from pymicro.plugins import API_VERSION, Build, NoOptions
from pymicro_codec_protobuf import _plugin
from pymicro_codec_protobuf._proto_rpc import ProtoRpcCodec
from pymicro_codec_protobuf._protobuf import ProtobufCodec


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
    full = everything(
        str="é<&>中😀",
        big_int=2**53 + 1,
        s64=-5,
        dbl=0.1,
        data=b"\0\xff",
        color=2,
        inner={"s": "i", "n": 1},
        list=[{"s": "a"}, {}],
        labels={"k": "v"},
        by_id={7: {"s": "seven"}},
        packed=[1, 300, -1],
        obj={"n": 9},
        ts={"seconds": 1, "nanos": 5},
        ws={"value": "w"},
    )
    alone = [{"inner": {}, "opt": ""}, {"name": "n"}, {"dbl": float("nan")}, {"color": 9}]
    survives(
        ProtobufCodec().decoder(everything),
        [message.SerializeToString() for message in (full, *(everything(**fields) for fields in alone))],
    )


@pytest.mark.parametrize("unwrap", ["unwrap_request", "unwrap_response"])
def test_no_envelope_raises_anything_but_bad_request(unwrap: str) -> None:
    codec, request = ProtoRpcCodec(), Envelope(id="42", endpoint="Greeter.Hello")
    error = codec.wrap_response(Envelope(id="42", error='{"id":"x","code":400}'), b"")
    seeds = [codec.wrap_request(request, b""), codec.wrap_request(request, b"\x0a\x02hi"), error]
    survives(getattr(codec, unwrap), seeds)


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
