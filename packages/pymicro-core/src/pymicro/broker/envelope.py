"""Messages as Go Micro's brokers write them: JSON with the headers, and the body in base64.

For plugins whose peers read the same topics. Follows go-micro `broker/http.go`, `broker/nats/nats.go` and the others.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits

__all__ = ["KEY", "TOPIC", "longest", "read", "spelled", "write"]

#: The header that says where a message was published; older Go services look there.
TOPIC: Final = "Micro-Topic"

#: The ordering key on its way; other than the rest it is no header of the message.
KEY: Final = "Micro-Key"

#: Names that Go Micro's subscribers look up as they are written here, and the two spellings of the id that they know.
_SPELLINGS: Final = {
    "content-type": ("Content-Type",),
    "micro-topic": (TOPIC,),
    "micro-id": ("Micro-ID", "Micro-Id"),
}

#: The same by the names as they mostly come, which saves a step for each.
_SPELLED: Final = {name: spellings for spellings in _SPELLINGS.values() for name in spellings}


class _Envelope(msgspec.Struct, rename="pascal"):
    header: dict[str, str] | None = None
    body: bytes | None = None


_encode: Final = msgspec.json.Encoder(order="deterministic").encode  # Go sorts the names, too
_decode: Final = msgspec.json.Decoder(_Envelope).decode


def spelled(topic: str, message: Message, key: str | None) -> dict[str, str]:
    """The headers of a message as Go Micro's subscribers look them up, with its key, and the topic if none is there."""
    fields = {TOPIC: topic}
    for name, value in message.headers.items():
        for spelling in _SPELLED.get(name) or _SPELLINGS.get(name.lower(), (name,)):
            fields[spelling] = value
    if key is not None:
        fields[KEY] = key
    return fields


def write(topic: str, message: Message, key: str | None) -> bytes:
    """The envelope of a message that is published to `topic`."""
    return _encode(_Envelope(spelled(topic, message, key), message.body))


def read(data: bytes) -> tuple[Message, str | None]:
    """The message in an envelope, and its key.

    Raises:
        ValueError: it is no such JSON.
    """
    try:
        envelope = _decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"no envelope: {error}") from error
    fields = envelope.header or {}
    key = fields.pop(KEY, None)
    return Message(Headers(fields), envelope.body or b""), key


def longest(limits: Limits) -> int:
    """Bytes that an envelope may have: base64 takes a third more, and JSON up to six bytes for one of a header."""
    return limits.message * 4 // 3 + limits.headers * 6 + 4096
