"""The protobuf codecs do what every codec must do."""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from pymicro.codec import Codec, EnvelopeCodec
from pymicro_codec_protobuf._proto_rpc import ProtoRpcCodec
from pymicro_codec_protobuf._protobuf import ProtobufCodec
from pymicro_testing import CodecConformance, EnvelopeCodecConformance


class TestProtobuf(CodecConformance):
    values = (
        (StringValue, StringValue()),
        (StringValue, StringValue(value="Grüße, 日本 ✓ 🙂\0")),
        (Int64Value, Int64Value(value=-(2**63))),
        (BytesValue, BytesValue(value=bytes(range(256)))),
        (Timestamp, Timestamp(seconds=2**33, nanos=5)),
        (Struct, Struct(fields={"a": Value(number_value=1.5), "": Value(null_value="NULL_VALUE")})),
        (bytes, b"\0\xff"),
    )
    misfits = ((StringValue, "text"), (StringValue, Int64Value()), (StringValue, None), (Any, 5))
    malformed = ((StringValue, b"\x0a\x05a"), (StringValue, b"\x0a\x01\xff"), (Int64Value, b"\x08"))
    named = ((StringValue, b"\x0a\x05a", "google.protobuf.StringValue"),)
    refused = (str, int, dict[str, int], StringValue | None)

    def make(self) -> Codec:
        return ProtobufCodec()


class TestProtobufInsideProtoRpc(CodecConformance):
    values = TestProtobuf.values

    def make(self) -> Codec:
        return ProtoRpcCodec().inner


class TestProtoRpc(EnvelopeCodecConformance):
    bodies = (b"", b"\x0a\x02hi", bytes(range(256)), b"\0" * 1000)

    def make(self) -> EnvelopeCodec:
        return ProtoRpcCodec()
