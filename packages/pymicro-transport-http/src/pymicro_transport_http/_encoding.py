"""Headers as HTTP/1.1 header lines, and as fields of channel frames.

Nothing that a caller puts into a name or a value can end a line. As in Go (`net/http`, `Header.Write`), control
characters in values become spaces and names that are no token are left out. Values are raw UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pymicro.metadata import Headers

#: Framing belongs to the transport (as Go's `Request.Write` has it); the others would make a Go peer, which copies
#: request headers into its responses, mis-describe a response or wait for something that never comes.
_RESERVED: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "trailer", "upgrade", "expect", "content-encoding"}
)

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

#: `Name: ` by name, empty for names that are left out.
_PREFIXES: Final[dict[str, str]] = {}
_MAX_PREFIXES: Final = 1024  # metadata may bring any number of names


class Wire:
    """Headers that are sent again and again, encoded once. The type tells it from what other transports keep there.

    Attributes:
        lines: as HTTP header lines; None until they are needed.
        fields: as the fields of a channel's frame; None until they are needed.
    """

    __slots__ = ("fields", "lines")

    def __init__(self) -> None:
        self.lines: bytes | None = None
        self.fields: bytes | None = None


def encode(headers: Headers) -> bytes:
    """The header lines of `headers`, each with its CR LF.

    Constant headers are encoded once: `extend` leaves them in `base`, which keeps its lines.
    """
    base = headers.base
    if base is None:
        return _lines_of(headers)
    wire = base.wire
    if type(wire) is Wire and wire.lines is not None:
        return wire.lines + _lines(headers.added)
    return _lines_of(base) + _lines(headers.added)


def _lines_of(headers: Headers) -> bytes:
    wire = headers.wire
    if type(wire) is not Wire:
        wire = headers.wire = Wire()
    if wire.lines is None:
        wire.lines = _lines(headers.items())
    return wire.lines


def _lines(fields: Iterable[tuple[str, str]]) -> bytes:
    text = ""
    for name, value in fields:
        prefix = _PREFIXES.get(name)
        if prefix is None:
            prefix = _prefix(name)
        if prefix:
            text += f"{prefix}{value if value.isprintable() else _clean(value)}\r\n"
    return text.encode()


def encode_fields(fields: Iterable[tuple[str, str]]) -> bytes:
    """The fields of a channel's frame: each name and each value with a NUL behind it."""
    text = ""
    for name, value in fields:
        prefix = _PREFIXES.get(name)
        if prefix is None:
            prefix = _prefix(name)
        if prefix:
            text += f"{name}\0{value if value.isprintable() else _clean(value)}\0"
    return text.encode()


def _prefix(name: str) -> str:
    prefix = f"{name}: " if _TOKEN.fullmatch(name) and name.lower() not in _RESERVED else ""
    if len(_PREFIXES) < _MAX_PREFIXES:
        _PREFIXES[name] = prefix
    return prefix


def _clean(value: str) -> str:
    return _CONTROL.sub(" ", value).encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8 form
