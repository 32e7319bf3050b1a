"""Heads that come again and again, recognised without parsing them.

A pymicro client's requests to an endpoint differ in three numbers at the end of their heads: id, time left, length.
What stands before these is remembered, with its meaning, once httptools has read it twice. A later segment is taken
from here only if it is exactly one message: known bytes, three lines with nothing but digits in them, and as much body
as the length says. So it is read as httptools would read it. Everything else goes there.
"""

from __future__ import annotations

import re
from typing import Final

from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.rpc import names

_CUT: Final = b"\r\nMicro-Id: "
_NUMBERS: Final = re.compile(
    rb"\r\nMicro-Id: ([0-9]{1,19})\r\nTimeout: ([0-9]{1,19})\r\nContent-Length: ([0-9]{1,9})\r\n\r\n"
).match
_REPLY: Final = re.compile(
    rb"HTTP/1\.1 200 OK\r\nContent-Type: ([a-z/-]{1,40})\r\nContent-Length: ([0-9]{1,9})\r\n\r\n"
).match

#: Names that a remembered part must not have: what is cut off, and what makes more of a message than headers.
_SPECIAL: Final = frozenset(
    {
        b"",  # the end of another head
        b"micro-id",
        b"timeout",
        b"content-length",
        b"transfer-encoding",
        b"micro-stream",
        b"upgrade",
        b"connection",
    }
)
_MAX_KNOWN: Final = 512
_MAX_PART: Final = 2048

#: What parts of heads mean, for all connections of the process.
_known: Final[dict[bytes, Headers]] = {}

#: What nearly all replies carry, so that their headers are made and read once.
KNOWN_REPLIES: Final = {
    content_type: Headers.from_raw({b"Content-Type": content_type})
    for content_type in (b"application/json", b"application/protobuf", b"application/octet-stream", b"text/plain")
}


class Requests:
    """The requests of one connection.

    Attributes:
        unknown: the part of the request that `take` could not tell; empty if that was not one to remember.
    """

    __slots__ = ("_limit", "_seen", "unknown")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen = b""
        self.unknown = b""

    def take(self, data: bytes) -> Message | None:
        """The message that `data` is; None if that is to be parsed."""
        cut = data.find(_CUT)
        numbers = _NUMBERS(data, cut) if cut > 0 else None
        if numbers is None:
            return None
        end = numbers.end()
        if len(data) - end != int(numbers[3]) or len(data) > self._limit:
            return None
        part = data[:cut]
        known = _known.get(part)
        if known is None:
            self.unknown = part
            return None
        added = (names.ID, str(numbers[1], "ascii")), (names.TIMEOUT, str(numbers[2], "ascii"))
        return Message(known.add(added), data[end:])

    def learn(self, headers: Headers) -> None:
        """The unknown part was sound; `headers` is what came of the whole head."""
        part, self.unknown = self.unknown, b""
        if part != self._seen:
            self._seen = part  # one that comes once, as with the ids of a trace, is not worth it
        elif len(part) <= _MAX_PART and _plain(part):
            if len(_known) >= _MAX_KNOWN:
                _known.clear()
            _known[part] = headers.without(names.ID, names.TIMEOUT)


def _plain(part: bytes) -> bool:
    """Whether its fields are all different, and none is special."""
    fields = [line.partition(b":")[0].lower() for line in part.split(b"\r\n")[1:]]
    return len({*fields}) == len(fields) and _SPECIAL.isdisjoint(fields)


class Replies:
    """The replies of one connection; see `Requests`."""

    __slots__ = ("_limit", "unknown")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.unknown = b""

    def take(self, data: bytes) -> Message | None:
        """The message that `data` is; None if that is to be parsed."""
        head = _REPLY(data)
        if head is None:
            return None
        known = KNOWN_REPLIES.get(head[1])
        end = head.end()
        if known is None or len(data) - end != int(head[2]) or len(data) > self._limit:
            return None
        return Message(known, data[end:])

    def learn(self, headers: Headers) -> None:
        """There is nothing to learn: what is known of replies is known from the beginning."""
