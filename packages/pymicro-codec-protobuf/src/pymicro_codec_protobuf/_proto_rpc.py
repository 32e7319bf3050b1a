"""`application/proto-rpc`: two blocks, each behind its length, as go-micro `codec/protorpc` has it.

The first block is the envelope, a message of its own; the second is the body. A length is four bytes, big-endian.
"""

from __future__ import annotations

import re
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from pymicro.codec import Envelope, EnvelopeCodec
from pymicro.errors import BadRequest
from pymicro.plugins import Build
from pymicro_codec_protobuf._protobuf import ProtobufCodec

_LENGTH: Final = 4
_ID: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_LARGEST: Final = 2**64 - 1


def _envelope_class() -> Any:
    """`message Envelope { string endpoint = 1; fixed64 id = 2; string error = 3; }`; requests leave out the error."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="pymicro/envelope.proto", package="pymicro", syntax="proto3")
    message = file.message_type.add(name="Envelope")
    for number, (name, kind) in enumerate(
        [("endpoint", field.TYPE_STRING), ("id", field.TYPE_FIXED64), ("error", field.TYPE_STRING)], start=1
    ):
        message.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pymicro.Envelope"))


_Envelope: Final = _envelope_class()


class ProtoRpcCodec(EnvelopeCodec):
    """Ids are numbers here: decimal text of up to 64 bits. A response without an id has 0."""

    def __init__(self, options: Any = None, build: Build | None = None) -> None:
        self.inner = ProtobufCodec(options, build)

    def wrap_request(self, envelope: Envelope, body: bytes) -> bytes:
        return _wrap(envelope, _number(envelope.id), body)

    def unwrap_request(self, data: bytes) -> tuple[Envelope, bytes]:
        return _unwrap(data, "request")

    def wrap_response(self, envelope: Envelope, body: bytes) -> bytes:
        return _wrap(envelope, _number(envelope.id or "0"), body)

    def unwrap_response(self, data: bytes) -> tuple[Envelope, bytes]:
        return _unwrap(data, "response")


def _number(id: str) -> int:
    if _ID.fullmatch(id) is None or int(id) > _LARGEST:
        raise BadRequest(f"proto-rpc cannot carry the id {id[:40]!r}: it must be a number of up to 64 bits")
    return int(id)


def _wrap(envelope: Envelope, number: int, body: bytes) -> bytes:
    try:
        block = _Envelope(endpoint=envelope.endpoint, id=number, error=envelope.error).SerializeToString()
    except ValueError as error:
        raise BadRequest(f"cannot encode a proto-rpc envelope: {error}") from error
    return b"%b%b%b%b" % (_length(block), block, _length(body), body)


def _length(block: bytes) -> bytes:
    return len(block).to_bytes(_LENGTH, "big")


def _unwrap(data: bytes, what: str) -> tuple[Envelope, bytes]:
    start, end = _block(data, 0, what)
    block = data[start:end]
    start, end = _block(data, end, what)
    if end != len(data):
        raise BadRequest(f"body does not fit a proto-rpc {what}: {len(data) - end} bytes after its end")
    try:
        head = _Envelope.FromString(block)
    except Exception as error:  # it differs between the implementations of protobuf
        raise BadRequest(f"body does not fit a proto-rpc {what}: {error}") from error
    return Envelope(id=str(head.id), endpoint=head.endpoint, error=head.error), data[start:end]


def _block(data: bytes, at: int, what: str) -> tuple[int, int]:
    """Where the block behind the length at `at` starts and ends."""
    start = at + _LENGTH
    end = start + int.from_bytes(data[at:start], "big")
    if len(data) < end:
        raise BadRequest(f"body does not fit a proto-rpc {what}: it ends after {len(data)} of {end} bytes")
    return start, end
