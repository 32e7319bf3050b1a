"""The codecs of the core do what every codec must do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import attrs
import pydantic

from pymicro.codec import BytesCodec, Codec, EnvelopeCodec, JsonCodec, JsonRpcCodec, TextCodec, message
from pymicro_testing import CodecConformance, EnvelopeCodecConformance
from pymicro_testing.codec import BYTES, STRUCTURED, TEXTS, Person


class Model(pydantic.BaseModel):
    name: str
    tags: list[str] = []


@attrs.define
class Shape:
    sides: int
    name: str = ""


@message(rename="camel", integers="string")
@dataclasses.dataclass
class Renamed:
    user_name: str
    follower_count: int = 0


class TestJson(CodecConformance):
    values = (
        *STRUCTURED,
        *BYTES,
        (Model, Model(name="é", tags=["a"])),
        (list[Model], [Model(name="a"), Model(name="b")]),
        (Shape, Shape(3, "triangle")),
        (Renamed, Renamed("u", 2**60)),
    )
    misfits = ((Person, {"name": "John"}), (Person, None), (str, 5), (Model, Person("x")), (Any, object()), (Any, {1j}))
    malformed = (
        (Person, b"{"),
        (Person, b"[]"),
        (str, b'"\xff"'),
        (float, b"NaN"),
        (Model, b'{"name":1}'),
        (int, b"x"),
    )
    named = (
        (Person, b'{"name":1}', "name: expected str, got int"),
        (Person, b'{"name":"n","address":{"street":"s","number":"x"}}', "address.number"),
        (Model, b'{"name":"n","tags":[1]}', "tags[0]"),
        (Shape, b'{"sides":"x"}', "sides"),
        (Renamed, b"{}", "user_name"),
    )
    refused = (complex, list[Callable[[], None]], type)

    def make(self) -> Codec:
        return JsonCodec()


class TestJsonInsideJsonRpc(CodecConformance):
    values = STRUCTURED
    refused = (complex,)

    def make(self) -> Codec:
        return JsonRpcCodec().inner


class TestBytes(CodecConformance):
    values = BYTES
    misfits = ((bytes, "text"), (Any, {}))
    refused = (str, dict[str, int], Person)

    def make(self) -> Codec:
        return BytesCodec()


class TestText(CodecConformance):
    values = (*TEXTS, *BYTES, (Any, "é"))
    misfits = ((str, b"bytes"), (str, "\ud800"), (Any, 5))
    malformed = ((str, b"\xff"), (Any, b"a\xc3"))
    refused = (int, dict[str, int], Person)

    def make(self) -> Codec:
        return TextCodec()


class TestJsonRpc(EnvelopeCodecConformance):
    bodies = (b"{}\n", b'{"name":"John"}', b"[1,2]", b'"\xc3\xa9"', b"5")

    def make(self) -> EnvelopeCodec:
        return JsonRpcCodec()
