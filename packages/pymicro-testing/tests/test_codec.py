"""The codec cases on the codecs of the core."""

from __future__ import annotations

import threading
from typing import ClassVar

from pymicro.codec import BytesCodec, Codec, EnvelopeCodec, JsonCodec, JsonRpcCodec, TextCodec
from pymicro_testing import CodecConformance, EnvelopeCodecConformance
from pymicro_testing.codec import BYTES, STRUCTURED, TEXTS, Person


class TestJson(CodecConformance):
    values = STRUCTURED
    misfits: ClassVar = [(Person, "John"), (int, "1"), (list[int], {})]
    malformed: ClassVar = [(Person, b"[]"), (int, b'"x"'), (str, b"1")]
    named: ClassVar = [(Person, b'{"name": "John", "age": "old"}', "age"), (Person, b"{}", "name")]
    refused: ClassVar = [threading.Lock().__class__]

    def make(self) -> Codec:
        return JsonCodec()


class TestText(CodecConformance):
    values = TEXTS
    misfits: ClassVar = [(str, 1)]
    malformed: ClassVar = [(str, b"\xff")]
    refused: ClassVar = [int, Person]

    def make(self) -> Codec:
        return TextCodec()


class TestBytes(CodecConformance):
    values = BYTES
    misfits: ClassVar = [(bytes, "text")]
    refused: ClassVar = [str, Person]

    def make(self) -> Codec:
        return BytesCodec()


class TestJsonRpc(EnvelopeCodecConformance):
    bodies: ClassVar = [b'{"name":"John"}\n', b"{}", b'"text"', b"[1,2]"]

    def make(self) -> EnvelopeCodec:
        return JsonRpcCodec()
