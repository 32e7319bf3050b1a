"""The bytes: names of keys, and fields of stream entries."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pymicro.message import Message
from pymicro.metadata import EMPTY, Headers

#: Consumer groups of queues, and of subscriptions without one, begin with these.
QUEUE: Final = "queue:"
OWN: Final = "own:"


class Keys:
    """The names in Redis for one topic. A stream, and a hash that says when subscriptions without a queue were seen.

    Args:
        prefix: what all names begin with.
        topic: any text.
    """

    __slots__ = ("_topic", "alive", "delayed_prefix", "stream")

    def __init__(self, prefix: str, topic: str) -> None:
        self._topic = topic
        self.stream = f"{prefix}stream:{topic}"
        self.alive = f"{prefix}alive:{topic}"
        self.delayed_prefix = f"{prefix}delayed:"

    def delayed(self, group: str) -> str:
        """The sorted set of a group's delayed messages. Says how long the group's name is: both may have colons."""
        return f"{self.delayed_prefix}{len(group.encode())}:{group}:{self._topic}"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A message as it lies in a stream.

    Attributes:
        id: its number in the stream.
        fields: names and values, alternating.
        count: how often it was delivered, this time included.
    """

    id: bytes
    fields: list[bytes]
    count: int


_write_json: Final = msgspec.json.Encoder(order="deterministic").encode  # Go sorts the names, too
_read_headers: Final = msgspec.json.Decoder(dict[str, str]).decode


def entry_fields(message: Message, key: str | None) -> list[bytes]:
    """Names and values of a stream entry: `headers` as a JSON object, `body` as it is, and `key` if there is one."""
    fields = [b"headers", _write_json(dict(message.headers.items())), b"body", bytes(message.body)]
    return fields if key is None else [*fields, b"key", key.encode()]


def read_entry(fields: list[bytes]) -> tuple[Message, str | None]:
    """The message in a stream entry, and its key. What is missing or unreadable, of another writer, is empty."""
    values = dict(zip(fields[::2], fields[1::2], strict=False))
    headers, key = values.get(b"headers"), values.get(b"key")
    message = Message(_headers(headers) if headers else EMPTY, values.get(b"body", b""))
    return message, None if key is None else key.decode("utf-8", "replace")


def _headers(data: bytes) -> Headers:
    try:
        return Headers(_read_headers(data))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return EMPTY


def entries_of(reply: Any) -> list[Entry]:
    """What XREADGROUP answered about one stream; those deleted meanwhile are left out."""
    return [Entry(id, fields, 1) for id, fields in reply[0][1] if fields] if reply else []
