"""Reading of JSON as Go reads it: what is legible is read, what is not is told in plain words."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from pymicro.codec._contract import Decode
from pymicro.codec._faults import does_not_fit

_TRAILING: Final = r"trailing characters \(byte (\d+)\)"
_first_value: Final = msgspec.json.Decoder(msgspec.Raw).decode


def strict(read: Decode) -> Decode:
    """`read`, with the syntax checked first: other readers of JSON let NaN and byte order marks pass."""

    def decode(data: bytes) -> Any:
        _first_value(data)
        return read(data)

    return decode


def tolerant(hint: Any, read: Decode, read_nulls: Decode | None = None) -> Decode:
    """`read`, with a second look at a body that it refuses, and `BadRequest` in the end.

    Args:
        hint: what the body should be, for the error.
        read: reads one JSON value and nothing after it.
        read_nulls: reads a value with nulls that `read` has no use for.
    """

    def decode(data: bytes) -> Any:
        try:
            return read(data)
        except Exception as error:  # classes may check themselves, and raise whatever they like
            return second_look(data, error)

    def second_look(data: bytes, error: Exception) -> Any:
        first = _first(data)
        attempts = [read] if first is not data else []
        if read_nulls is not None and b"null" in first:
            attempts.append(read_nulls)
        for attempt in attempts:
            try:
                return attempt(first)
            except Exception as latest:  # as above
                error = latest
        raise does_not_fit(hint, error) from error

    return decode


def _first(data: bytes) -> bytes:
    """The first JSON value of the body, without what follows it; `{}` for no body at all."""
    if not data:
        return b"{}"
    try:
        _first_value(data)
    except (msgspec.DecodeError, RecursionError) as error:
        end = re.search(_TRAILING, str(error))
        return data if end is None else data[: int(end[1]) - 1]  # msgspec counts from 1
    return data
