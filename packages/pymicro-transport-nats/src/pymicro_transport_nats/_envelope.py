"""Messages as Go Micro's transport writes them: JSON with the headers, and the body in base64.

Follows go-micro `transport/nats/nats.go`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pymicro.errors import BadRequest, ProtocolViolation
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits

#: Go looks names up as they are written here, and old and new versions differ about the id.
_SPELLINGS: Final = {"micro-id": ("Micro-ID", "Micro-Id")}


class _Envelope(msgspec.Struct, rename="pascal"):
    header: dict[str, str] | None = None
    body: bytes | None = None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Envelope).decode


def write(message: Message, answers: str = "") -> bytes:
    """The payload of a message; `answers` is the id of the request that it answers.

    Raises:
        BadRequest: a text in the headers cannot be written as UTF-8.
    """
    fields: dict[str, str] = {"Micro-ID": answers, "X-Micro-ID": answers} if answers else {}
    for name, value in message.headers.items():
        for spelling in _SPELLINGS.get(name.lower(), (name,)):
            fields[spelling] = value
    try:
        return _encode(_Envelope(fields, message.body))
    except UnicodeEncodeError as error:
        raise BadRequest(f"a header is no text: {error}", executed="no") from error


def read(data: bytes) -> Message:
    """The message in a payload.

    Raises:
        ProtocolViolation: it is no such JSON.
    """
    try:
        envelope = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"no message of Go Micro's: {error}") from error
    return Message(Headers(envelope.header or {}), envelope.body or b"")


def longest(limits: Limits) -> int:
    """Bytes that a payload may have: base64 takes a third more, and JSON up to six bytes for one of a header."""
    return limits.message * 4 // 3 + limits.headers * 6 + 4096
