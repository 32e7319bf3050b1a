"""Types and values that codecs are tried with."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal, TypedDict

import msgspec


class Colour(enum.Enum):
    """A string enumeration."""

    RED = "red"
    GREEN = "green"


@dataclass
class Address:
    """The inner one of two dataclasses."""

    street: str
    number: int = 0


@dataclass
class Person:
    """A dataclass with another one in it, and with what has a default."""

    name: str
    age: int = 0
    tags: list[str] = field(default_factory=list)
    address: Address | None = None
    known: dict[str, Address] = field(default_factory=dict)


class Order(msgspec.Struct):
    """A struct with the types that JSON has no form for."""

    id: uuid.UUID
    at: datetime.datetime
    total: Decimal
    colour: Colour
    payload: bytes = b""
    state: Literal["open", "done"] = "open"


class Point(TypedDict):
    """A dictionary with known keys."""

    x: float
    y: float


TEXTS: Final[Sequence[tuple[Any, Any]]] = [
    (str, text)
    for text in ("", "plain", "Grüße, 日本 ✓ 🙂", "\0", '"quoted" \\ back\nline\ttab', "\u2028\u2029", "x" * 100_000)
]
"""Texts: for every codec that carries `str`."""

BYTES: Final[Sequence[tuple[Any, Any]]] = [
    (bytes, body) for body in (b"", b"\0", bytes(range(256)), b"{", "Grüße".encode(), b"x" * 100_000)
]
"""Undecoded bodies: for every codec."""

_HOUSE: Final = Address("Königsallee", 7)
_WHEN: Final = datetime.datetime(2024, 2, 29, 12, 30, 15, 123000, tzinfo=datetime.UTC)

STRUCTURED: Final[Sequence[tuple[Any, Any]]] = [
    *TEXTS,
    (bool, True),
    (bool, False),
    (int, 0),
    (int, 2**63 - 1),
    (int, -(2**63)),
    (float, 0.1),
    (float, -1.5e300),
    (float, 5e-324),
    (list[int], []),
    (list[int], [1, -2, 3]),
    (list[list[str]], [["a"], [], ["b", "c"]]),
    (dict[str, int], {}),
    (dict[str, int], {"a": 1, "grüße": 2, "": 3, "dotted.key": 4}),
    (dict[str, list[dict[str, str]]], {"a": [{"b": "c"}]}),
    (tuple[int, str], (1, "a")),
    (str | int, "1"),
    (str | int, 1),
    (str | None, None),
    (Any, {"text": "a", "number": 1, "list": [1, 2.5, None, True, {"deep": []}], "nothing": None}),
    (Any, [1, "two"]),
    (Person, Person("John")),
    (Person, Person("Jürgen", 41, ["a", "b"], _HOUSE, {"home": _HOUSE, "": Address("")})),
    (list[Person], [Person("a"), Person("b", 1)]),
    (Person | None, None),
    (Order, Order(uuid.UUID(int=2**127 + 1), _WHEN, Decimal("12.50"), Colour.GREEN, b"\0\xff", "done")),
    (Point, {"x": 1.0, "y": -2.5}),
]
"""What codecs for values of all kinds carry: JSON, MessagePack, BSON."""
