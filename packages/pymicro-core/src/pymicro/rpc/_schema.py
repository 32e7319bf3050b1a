"""Types as registries describe them: names and fields, to the depth that go-micro `server/extractor.go` goes."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pymicro.record import Value

_DEPTH: Final = 3
_NAMES: Final[dict[Any, str]] = {
    str: "string",
    int: "int64",
    float: "float64",
    bool: "bool",
    bytes: "[]uint8",
    dict: "map",
    Any: "interface",
}


def describe(type: Any) -> Value | None:
    """The description of a request or response type; None for no body."""
    return None if type is None else _describe(_name(type), type, _DEPTH)


def _describe(name: str, hint: Any, depth: int) -> Value:
    item = _item(hint)
    fields = _fields(hint if item is None else item) if depth else {}
    values = tuple(_describe(field, inner, depth - 1) for field, inner in fields.items())
    return Value(name, _name(hint), values)


def _name(hint: Any) -> str:
    item = _item(hint)
    if item is not None:
        return "[]" + _name(item)
    plain: Any = typing.get_origin(hint) or hint
    return str(_NAMES.get(plain) or getattr(plain, "__name__", plain))


def _item(hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, (list, tuple, set, frozenset, Sequence)):
        return (typing.get_args(hint) or (Any,))[0]
    return None


def _fields(hint: Any) -> dict[str, Any]:
    known = dataclasses.is_dataclass(hint) or typing.is_typeddict(hint) or hasattr(hint, "__attrs_attrs__")
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return {field.encode_name: field.type for field in msgspec.structs.fields(hint)}
    if known or hasattr(hint, "model_fields"):
        try:
            hints = typing.get_type_hints(hint)
        except (NameError, TypeError):  # the description is for people: a type that cannot be read has no fields
            return {}
        return {name: inner for name, inner in hints.items() if not name.startswith("_") and name != "model_config"}
    descriptor: Any = getattr(hint, "DESCRIPTOR", None)
    return {field.name: Any for field in getattr(descriptor, "fields", ())}
