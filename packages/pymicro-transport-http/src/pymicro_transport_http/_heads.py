"""Headers on their way into frames: what is constant goes out once and is named by a number from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pymicro.metadata import Headers
from pymicro_transport_http._encoding import Wire, encode_fields
from pymicro_transport_http._frames import ALL_HEADS, FRAME, HEAD, MAX_HEAD, MAX_HEADS

_NOTHING: Final = b""


class Heads:
    """The heads that one side has named on one connection.

    Args:
        write: sends a frame that names another one.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._numbers: dict[bytes, int] = {_NOTHING: 0}
        self._room = ALL_HEADS

    def encode(self, headers: Headers) -> tuple[int, int, bytes]:
        """The number of the head (0: none), its size, and the fields on top of it."""
        base = headers.base
        if base is None:
            constant, added = headers, _NOTHING
        else:
            constant, added = base, encode_fields(headers.added)
        wire = constant.wire
        if type(wire) is Wire and wire.fields is not None:
            fields = wire.fields
            number = self._numbers.get(fields) or self._name(fields)
            if number:
                return number, len(fields), added
            return 0, 0, fields + added
        # Only headers that are sent a second time are worth a number.
        if type(wire) is not Wire:
            wire = constant.wire = Wire()
        fields = wire.fields = encode_fields(constant.items())
        return 0, 0, fields + added

    def _name(self, fields: bytes) -> int:
        number = len(self._numbers)
        if not 0 < len(fields) <= min(MAX_HEAD, self._room) or number > MAX_HEADS:
            return 0
        self._room -= len(fields)
        self._numbers[fields] = number
        self._write(FRAME.pack(len(fields), 0, 0, HEAD, number) + fields)
        return number
