"""DNS messages, as far as service discovery needs them (RFC 1035, RFC 2782); no I/O.

Names are text without the final dot. Their case is kept and compared, as Go Micro does; other than ASCII is UTF-8.
"""

from __future__ import annotations

import io
import ipaddress
import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from pymicro.errors import ConfigurationError

A: Final = 1
PTR: Final = 12
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
ANY: Final = 255
IN: Final = 1

#: The class of a question or record; the top bit asks for unicast or flushes caches (RFC 6762, 5.4 and 10.2).
CLASS: Final = 0x7FFF

RESPONSE: Final = 0x8000
AUTHORITATIVE: Final = 0x0400

MAX_LABEL: Final = 63
MAX_NAME: Final = 255

#: The two top bits of a length: not a label follows but the offset of the rest of the name (RFC 1035, 4.1.4).
_POINTER: Final = 0xC0
_LARGEST_OFFSET: Final = 0x3FFF

_OPCODE: Final = 0x7800
_MAX_QUESTIONS: Final = 16
_MAX_RECORDS: Final = 64
_HEADER: Final = struct.Struct("!HHHHHH")
_RECORD: Final = struct.Struct("!HHIH")
_MALFORMED: Final = (ValueError, IndexError, struct.error)


class Question(msgspec.Struct, frozen=True):
    """One question: the name, the type and the class with its top bit."""

    name: str
    type: int
    klass: int = IN


class Records:
    """The records of one response that matter, by their owner's name.

    Attributes:
        pointers: targets of PTR records.
        services: port and target of SRV records.
        gone: owners of SRV records with TTL 0.
        ipv4, ipv6: addresses; the unspecified one is left out.
        texts: the strings of TXT records; none for empty data, which Go Micro sends.
    """

    def __init__(self) -> None:
        self.pointers: dict[str, list[str]] = {}
        self.services: dict[str, tuple[int, str]] = {}
        self.gone: list[str] = []
        self.ipv4: dict[str, str] = {}
        self.ipv6: dict[str, str] = {}
        self.texts: dict[str, tuple[bytes, ...]] = {}


class Packet:
    """A message that is being written.

    Args:
        id: 16 bits.
        flags: the second word of the header.
        compress: whether names point to earlier ones.
    """

    def __init__(self, id: int, flags: int, *, compress: bool = False) -> None:
        self._id, self._flags = id, flags
        self._questions = self._records = 0
        self._out = io.BytesIO(bytes(_HEADER.size))
        self._out.seek(0, io.SEEK_END)
        self._compress = compress
        self._offsets: dict[bytes, int] = {}

    def question(self, question: Question) -> None:
        """Add a question; before all records."""
        self._questions += 1
        self._name(question.name)
        self._out.write(struct.pack("!HH", question.type, question.klass))

    def record(self, owner: str, type: int, ttl: int, data: bytes = b"", target: str = "") -> None:
        """Add an answer; what it says is `data`, followed by the name `target` if there is one."""
        self._records += 1
        self._name(owner)
        self._out.write(_RECORD.pack(type, IN, ttl, 0))
        start = self._out.tell()
        self._out.write(data)
        if target:
            self._name(target)
        end = self._out.tell()
        self._out.seek(start - 2)
        self._out.write(struct.pack("!H", end - start))
        self._out.seek(end)

    def done(self) -> bytes:
        """The message."""
        self._out.seek(0)
        self._out.write(_HEADER.pack(self._id, self._flags, self._questions, self._records, 0, 0))
        return self._out.getvalue()

    def _name(self, text: str) -> None:
        rest = name(text)
        while rest[0]:
            if rest in self._offsets:
                self._out.write(struct.pack("!H", _POINTER << 8 | self._offsets[rest]))
                return
            if self._compress and self._out.tell() <= _LARGEST_OFFSET:
                self._offsets[rest] = self._out.tell()
            end = 1 + rest[0]
            self._out.write(rest[:end])
            rest = rest[end:]
        self._out.write(rest)


def read_query(data: bytes) -> tuple[int, list[Question]] | None:
    """The id and the questions of a query; None for anything else, malformed packets included."""
    if len(data) < _HEADER.size:
        return None
    id, flags, count, *_ = _HEADER.unpack_from(data)
    if flags & (RESPONSE | _OPCODE) or not 0 < count <= _MAX_QUESTIONS:
        return None
    reader = _Reader(data)
    try:
        return id, [reader.question() for _ in range(count)]
    except _MALFORMED:
        return None


def read_response(data: bytes, *, asked: bool) -> Records | None:
    """The records of a response, from all its sections; None for anything else, malformed packets included.

    Args:
        data: the packet.
        asked: whether responses that repeat a question are read; otherwise only those without one.
    """
    if len(data) < _HEADER.size:
        return None
    _, flags, questions, *sections = _HEADER.unpack_from(data)
    if not flags & RESPONSE or flags & _OPCODE or sum(sections) > _MAX_RECORDS:
        return None
    if questions > (_MAX_QUESTIONS if asked else 0):
        return None
    reader = _Reader(data)
    records = Records()
    try:
        for _ in range(questions):
            reader.question()
        for _ in range(sum(sections)):
            reader.record_into(records)
    except _MALFORMED:
        return None
    return records


class _Reader:
    """Reads a message from after its header. Each method may raise one of `_MALFORMED`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = _HEADER.size

    def question(self) -> Question:
        owner = self._name()
        type, klass = struct.unpack("!HH", self._take(4))
        return Question(owner, type, klass)

    def record_into(self, records: Records) -> None:
        """Read one record and note what it says; other classes and types are passed over."""
        owner = self._name()
        type, klass, ttl, size = _RECORD.unpack(self._take(_RECORD.size))
        end = self._at + size
        if end > len(self._data):
            raise ValueError("the packet is cut off")
        if klass & CLASS == IN:
            self._note(records, owner, type, ttl, end)
        self._at = end

    def _note(self, records: Records, owner: str, type: int, ttl: int, end: int) -> None:
        if type == SRV and not ttl:
            records.gone.append(owner)
        elif type == SRV:
            _, _, port = struct.unpack("!HHH", self._take(6))
            records.services[owner] = (port, self._name())
        elif type == PTR and ttl:
            records.pointers.setdefault(owner, []).append(self._name())
        elif type == A:
            _note_address(records.ipv4, owner, ipaddress.IPv4Address(self._take(4)))
        elif type == AAAA:
            _note_address(records.ipv6, owner, ipaddress.IPv6Address(self._take(16)))
        elif type == TXT:
            records.texts[owner] = tuple(self._strings(end))

    def _strings(self, end: int) -> Iterator[bytes]:
        while self._at < end:
            (size,) = self._take(1)
            yield self._take(size)

    def _take(self, size: int) -> bytes:
        data = self._data[self._at : self._at + size]
        if len(data) < size:
            raise ValueError("the packet is cut off")
        self._at += size
        return data

    def _name(self) -> str:
        labels: list[bytes] = []
        at = start = self._at
        end, after, room = len(self._data), 0, MAX_NAME - 1
        for _ in range(MAX_NAME):
            size = self._data[at]
            if not size:
                self._at = after or at + 1
                return b".".join(labels).decode()
            if size >= _POINTER:
                after = after or at + 2
                at, end = (size - _POINTER) << 8 | self._data[at + 1], start
                start = at
            else:
                labels.append(self._data[at + 1 : at + 1 + size])
                at += 1 + size
                room -= 1 + size
            if at >= end or room < 0 or MAX_LABEL < size < _POINTER:
                break  # what follows a pointer lies before the pointer's own part, so that there is an end
        raise ValueError("a name is too long, or leads in circles")


def _note_address(known: dict[str, str], owner: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not address.is_unspecified:
        known[owner] = str(address)


def name(text: str, what: str = "a name") -> bytes:
    """A DNS name as it is sent.

    Args:
        text: the name, without the final dot.
        what: whose name it is, for the error.

    Raises:
        ConfigurationError: a label is empty or too long, or the whole is.
    """
    try:
        labels = text.encode().split(b".")
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{what} cannot be a DNS name: {text!r}: {error}") from error
    for label in labels:
        if len(label) > MAX_LABEL:
            raise ConfigurationError(
                f"{what} has the label {label.decode()!r} of {len(label)} bytes; DNS allows {MAX_LABEL}"
            )
    if not all(labels):
        raise ConfigurationError(f"{what} cannot be a DNS name: {text!r}: a label is empty")
    sent = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(sent) > MAX_NAME:
        raise ConfigurationError(
            f"{what} cannot be a DNS name: {text!r}: it takes {len(sent)} bytes, and DNS allows {MAX_NAME}"
        )
    return sent
