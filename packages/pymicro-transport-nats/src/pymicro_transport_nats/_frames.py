"""What pymicro peers send each other, each frame the payload of one NATS message.

A frame begins with its kind and two numbers. A client sends to `<subject of the node>.pymicro`, with a subject of its
own for the answers, which is the name of the socket on both sides.

| kind | numbers | then |
| --- | --- | --- |
| OPEN | sizes of the two parts of the headers | the client's window (4 bytes), headers, body: the first message |
| DATA | the same | headers, body |
| CREDIT | bytes that were taken, 0 | |
| CLOSE | messages that were taken, 1 if the socket was never accepted | |
| PING | 0, 0 | |
| PONG | the window, 1 if sockets are accepted | 8 bytes that name this life of the node |

A window is what a side holds for a socket that nobody took; frames count with all their bytes.

Headers are two MessagePack maps: those that are the same in many messages, which receivers know by their bytes, and
the others.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from pymicro.errors import BadRequest, ProtocolViolation
from pymicro.metadata import Headers

OPEN: Final = 1
DATA: Final = 2
CREDIT: Final = 3
CLOSE: Final = 4
PING: Final = 5
PONG: Final = 6

FRAME: Final = struct.Struct(">BII")
WINDOW: Final = struct.Struct(">I")
SIZE: Final = FRAME.size

ASK: Final = FRAME.pack(PING, 0, 0)

#: Headers that a receiver remembers, and their size.
_REMEMBERED: Final = 512
_SMALL: Final = 1024

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(dict[str, str]).decode


class _Wire:
    """The encoded form of headers that are sent many times."""

    __slots__ = ("packed",)

    def __init__(self, packed: bytes) -> None:
        self.packed = packed


def pack(headers: Headers) -> tuple[bytes, bytes]:
    """The two parts of the headers.

    Raises:
        BadRequest: a text in them cannot be written as UTF-8.
    """
    try:
        base = headers.base
        if base is None:
            return _constant(headers), b""
        return _constant(base), _encode(dict(headers.added))
    except UnicodeEncodeError as error:
        raise BadRequest(f"a header is no text: {error}", executed="no") from error


def _constant(headers: Headers) -> bytes:
    wire = headers.wire
    if type(wire) is not _Wire:
        wire = headers.wire = _Wire(_encode(dict(headers.items())))
    return wire.packed


class Reader:
    """Decodes headers, and remembers those that come again and again."""

    def __init__(self) -> None:
        self._known: dict[bytes, Headers] = {}

    def headers(self, constant: bytes, added: bytes) -> Headers:
        """The headers of two parts.

        Raises:
            ProtocolViolation: the bytes are no such maps.
        """
        try:
            base = self._known.get(constant)
            if base is None:
                base = Headers(_decode(constant))
                if len(self._known) < _REMEMBERED and len(constant) <= _SMALL:
                    self._known[constant] = base
            return base.add(tuple(_decode(added).items())) if added else base
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolViolation(f"headers that cannot be read: {error}") from error


def header_size(constant: bytes, added: bytes) -> int:
    """Bytes of all names and values, as the limit counts them.

    Raises:
        ProtocolViolation: the bytes are no such maps.
    """
    size = 0
    try:
        for part in (constant, added):
            if part:
                size += sum(len(name.encode()) + len(value.encode()) for name, value in _decode(part).items())
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ProtocolViolation(f"headers that cannot be read: {error}") from error
    return size
