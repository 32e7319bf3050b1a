"""Messages as AMQP has them. Follows go-micro `broker/rabbitmq`: everything is in the table of headers."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from pamqp.commands import Basic

from pymicro.broker import envelope
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro_rabbitmq import check_table, text

_CONTENT_TYPE: Final = "Content-Type"

#: What the server itself adds.
_COUNT: Final = "x-delivery-count"
_SERVERS_OWN: Final = frozenset({_COUNT, "x-acquired-count"})

_PERSISTENT: Final = 2

#: Which properties a content header has.
_HAS_HEADERS: Final = 1 << 13
_HAS_MODE: Final = 1 << 12
_HAS_ID: Final = 1 << 7

_FLAGS: Final = struct.Struct(">H")
_LENGTH: Final = struct.Struct(">I")

#: Bytes of a message besides its body, or somewhat more.
FRAMES: Final = 512


class _Properties(Basic.Properties):
    """What `properties` makes, and the id that the driver adds. Its own encoding, of anything, costs ten times more."""

    def marshal(self) -> bytes:
        """As in the frame of a content header: flags, then the properties that they tell of."""
        headers: Mapping[str, Any] = self.headers or {}
        table = b"".join([_field(name.encode(), value.encode()) for name, value in headers.items()])
        flags, parts = _HAS_HEADERS, [_LENGTH.pack(len(table)), table]
        if self.delivery_mode is not None:
            flags |= _HAS_MODE
            parts.append(b"%c" % self.delivery_mode)
        if self.message_id:
            flags |= _HAS_ID
            parts.append(b"%c%b" % (len(self.message_id), self.message_id.encode()))
        return b"".join((_FLAGS.pack(flags), *parts))


def _field(name: bytes, value: bytes) -> bytes:
    return b"%c%bS%b%b" % (len(name), name, _LENGTH.pack(len(value)), value)


def properties(topic: str, message: Message, key: str | None, *, persistent: bool) -> Basic.Properties:
    """Everything of a message but its body.

    Raises:
        BackendRefused: the name of a header is too long.
        TooLarge: the headers do not fit into a frame.
    """
    table: dict[str, Any] = {**envelope.spelled(topic, message, key)}
    check_table(table)
    return _Properties(headers=table, delivery_mode=_PERSISTENT if persistent else None)


def read(topic: str, properties: Basic.Properties, body: bytes) -> tuple[Message, str | None]:
    """A message that was published to `topic`, and its key. Values that are no text become it, as in Go Micro."""
    table: dict[str, Any] = properties.headers or {}
    fields = {name: text(value) for name, value in table.items() if name not in _SERVERS_OWN}
    key = fields.pop(envelope.KEY, None)
    headers = Headers(fields)
    missing = []
    if envelope.TOPIC not in headers:
        missing.append((envelope.TOPIC, topic))
    if properties.content_type and _CONTENT_TYPE not in headers:
        missing.append((_CONTENT_TYPE, properties.content_type))  # other clients than Go Micro's have it there
    return Message(headers.add(tuple(missing)) if missing else headers, body), key


def count(properties: Basic.Properties, *, redelivered: bool) -> int:
    """How often the server handed the message out, this time included; of a queue that does not count, 2 for more."""
    counted = (properties.headers or {}).get(_COUNT)
    return (counted if isinstance(counted, int) else int(redelivered)) + 1
