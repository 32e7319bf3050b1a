"""`application/protobuf`: one message without a frame, as go-micro `codec/proto` has it."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from pymicro.codec import BaseCodec, Decode, Encode
from pymicro.errors import BadRequest, InvalidHandler


class ProtobufCodec(BaseCodec):
    """Carries messages that protoc generated, and `bytes` as they are.

    `Any` can be written only: the bytes of a message do not say which one it is. An empty body
    is an empty message, and no body is an empty one.
    """

    def _encoder(self, type: Any) -> Encode:
        if type is Any:
            return self._write_any
        cls = _message_class(type)

        def encode(value: Any) -> bytes:
            if not isinstance(value, cls):
                raise BadRequest(f"cannot encode {_name(cls)}: got {value.__class__.__name__}")
            try:
                return value.SerializeToString()
            except Exception as error:  # it differs between the implementations of protobuf
                raise BadRequest(f"cannot encode {_name(cls)}: {error}") from error

        return encode

    def _decoder(self, type: Any) -> Decode:
        cls = _message_class(type)
        read = cls.FromString

        def decode(data: bytes) -> Message:
            try:
                return read(data)
            except Exception as error:  # as above
                raise BadRequest(f"body does not fit {_name(cls)}: {error}") from error

        return decode

    def _write_any(self, value: Any) -> bytes:
        if not isinstance(value, (Message, bytes)):
            raise BadRequest(f"cannot encode {type(value).__name__}: application/protobuf carries protobuf messages")
        return self.encoder(type(value))(value)


def _message_class(hint: Any) -> type[Message]:
    if isinstance(hint, type) and issubclass(hint, Message) and hasattr(hint, "DESCRIPTOR"):
        return hint
    name = hint.__qualname__ if isinstance(hint, type) else str(hint)
    raise InvalidHandler(f"application/protobuf carries protobuf messages and bytes, not {name}")


def _name(cls: type[Message]) -> str:
    return str(cls.DESCRIPTOR.full_name)
