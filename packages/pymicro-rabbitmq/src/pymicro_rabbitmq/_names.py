"""What AMQP can carry: names, and the table of headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pymicro.errors import BackendRefused, TooLarge

_LONGEST_NAME: Final = 255  # bytes of what AMQP calls a short string
_LONGEST_FIELD: Final = 128  # bytes of a header's name; the driver cuts off what is beyond
_FRAME: Final = 131072  # the smallest bound that servers have for the frame that headers travel in
_OVERHEAD: Final = 4096


def check_name(what: str, name: str) -> None:
    """Refuse what the server cannot have as the name of an exchange, queue or routing key.

    Raises:
        BackendRefused: with the reason.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BackendRefused(f"{what} {name!r} is no valid Unicode") from None
    if size > _LONGEST_NAME:
        raise BackendRefused(f"{what} {name!r} has {size} bytes, and RabbitMQ allows {_LONGEST_NAME}")


def check_key(what: str, key: str) -> None:
    """Refuse what cannot bind a queue to a topic exchange without meaning other keys, too.

    Raises:
        BackendRefused: with the reason.
    """
    check_name(what, key)
    if not {"*", "#"}.isdisjoint(key.split(".")):
        raise BackendRefused(f"{what} {key!r}: a part that is * or # matches other {what}s in RabbitMQ")


def check_table(table: Mapping[str, str]) -> None:
    """Refuse headers that AMQP cannot carry.

    Raises:
        BackendRefused: the name of a header is too long.
        TooLarge: the headers do not fit into a frame.
    """
    if max(map(len, table), default=0) > _LONGEST_FIELD // 4:
        _check_fields(table)
    if sum(map(len, table)) + sum(map(len, table.values())) > _FRAME // 8:
        _check_size(table)


def _check_fields(table: Mapping[str, str]) -> None:
    for name in table:
        if len(name.encode()) > _LONGEST_FIELD:
            raise BackendRefused(f"header {name!r} has a name of more than {_LONGEST_FIELD} bytes, AMQP's limit")


def _check_size(table: Mapping[str, str]) -> None:
    size = sum(len(name.encode()) + len(value.encode()) + 8 for name, value in table.items())
    if size > _FRAME - _OVERHEAD:
        raise TooLarge(f"headers of {size} bytes do not fit into a frame of {_FRAME}, which is RabbitMQ's limit")


def text(value: Any) -> str:
    """A value of a table of headers, which need not be text, as Go Micro reads it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    return str(value).lower() if isinstance(value, bool) else str(value)
