"""JSON values changed along a type before they are read, and after they were written.

Two things are beyond msgspec: the nulls that Go writes for empty slices, maps and bytes, and classes with `@message`.
"""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import inspect

from pymicro.codec._message import options_of
from pymicro.codec._shapes import OBJECTS, nodes
from pymicro.errors import InvalidHandler

_EMPTY_ARRAY: Final = (inspect.CollectionType, inspect.TupleType)
_EMPTY_TEXT: Final = (inspect.BytesType, inspect.ByteArrayType, inspect.MemoryViewType)
_INTEGER: Final = r"-?[0-9]{1,40}"


def has_messages(root: inspect.Type) -> bool:
    """Whether a class with `@message` is anywhere in the type.

    Raises:
        InvalidHandler: such a class is one of several in a union, where JSON does not tell which one it is.
    """
    found = False
    for node in nodes(root):
        if isinstance(node, inspect.UnionType):
            objects = [member for member in node.types if isinstance(member, OBJECTS)]
            for member in objects if len(objects) > 1 else ():
                if options_of(member.cls) is not None:
                    raise InvalidHandler(f"{member.cls.__name__} has @message and cannot share a union with others")
        elif isinstance(node, OBJECTS) and options_of(node.cls) is not None:
            found = True
    return found


def admit(node: inspect.Type, value: Any, *, integers: bool = False) -> Any:
    """The JSON value as msgspec can read it.

    Null becomes the default of a field that has one, and an empty array, object or bytes where the type is one.
    Names and integers of `@message` become Python's.
    """
    if isinstance(node, inspect.Metadata):
        return admit(node.type, value, integers=integers)
    if isinstance(node, inspect.UnionType):
        member = _member(node, value)
        return value if member is None else admit(member, value, integers=integers)
    if value is None:
        return _zero(node)
    if isinstance(value, list):
        return [admit(inner, item, integers=integers) for inner, item in _items(node, value)]
    if isinstance(value, dict):
        if isinstance(node, OBJECTS):
            return _admit_fields(node, value)
        return {key: admit(inner, item, integers=integers) for key, inner, item in _entries(node, value)}
    if integers and isinstance(node, inspect.IntType) and isinstance(value, str) and re.fullmatch(_INTEGER, value):
        return int(value)
    return value


def _admit_fields(node: Any, value: dict[str, Any]) -> dict[str, Any]:
    options = options_of(node.cls)
    fields = {field.encode_name: field for field in node.fields}
    if options is not None:
        names = {options.wire_name(field.name): field.encode_name for field in node.fields}
        value = {names.get(key, key): item for key, item in value.items()}
    text = options is not None and options.integers == "string"
    admitted = {}
    for key, item in value.items():
        field = fields.get(key)
        if field is None:
            admitted[key] = item
        elif item is not None or field.required or _nullable(field.type):
            admitted[key] = admit(field.type, item, integers=text)
    return admitted


def present(node: inspect.Type, value: Any, *, integers: bool = False) -> Any:
    """The JSON value that msgspec wrote, with the names and integers of `@message`."""
    if isinstance(node, inspect.Metadata):
        return present(node.type, value, integers=integers)
    if isinstance(node, inspect.UnionType):
        member = _member(node, value)
        return value if member is None else present(member, value, integers=integers)
    if isinstance(value, list):
        return [present(inner, item, integers=integers) for inner, item in _items(node, value)]
    if isinstance(value, dict):
        if isinstance(node, OBJECTS):
            return _present_fields(node, value)
        return {key: present(inner, item, integers=integers) for key, inner, item in _entries(node, value)}
    number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if integers and number and isinstance(node, inspect.IntType) else value


def _present_fields(node: Any, value: dict[str, Any]) -> dict[str, Any]:
    options = options_of(node.cls)
    text = options is not None and options.integers == "string"
    fields = {field.encode_name: field for field in node.fields}
    presented = {}
    for key, item in value.items():
        field = fields.get(key)
        name = options.wire_name(field.name) if options is not None and field is not None else key
        presented[name] = item if field is None else present(field.type, item, integers=text)
    return presented


def _items(node: inspect.Type, value: list[Any]) -> list[tuple[inspect.Type, Any]]:
    if isinstance(node, inspect.CollectionType):
        return [(node.item_type, item) for item in value]
    if isinstance(node, inspect.TupleType | inspect.NamedTupleType):
        kinds = node.item_types if isinstance(node, inspect.TupleType) else [field.type for field in node.fields]
        rest = [inspect.AnyType()] * (len(value) - len(kinds))
        return list(zip([*kinds, *rest], value, strict=False))
    return [(inspect.AnyType(), item) for item in value]


def _entries(node: inspect.Type, value: dict[str, Any]) -> list[tuple[str, inspect.Type, Any]]:
    inner = node.value_type if isinstance(node, inspect.DictType) else inspect.AnyType()
    return [(key, inner, item) for key, item in value.items()]


def _zero(node: inspect.Type) -> Any:
    if isinstance(node, _EMPTY_ARRAY):
        return []
    if isinstance(node, (inspect.DictType, *OBJECTS)):
        return {}
    return "" if isinstance(node, _EMPTY_TEXT) else None


def _nullable(node: inspect.Type) -> bool:
    if isinstance(node, inspect.Metadata):
        return _nullable(node.type)
    if isinstance(node, inspect.UnionType):
        return any(_nullable(member) for member in node.types)
    return isinstance(node, inspect.NoneType | inspect.AnyType | inspect.RawType)


def _member(node: inspect.UnionType, value: Any) -> inspect.Type | None:
    """The one member of a union that the value can be; None when there is no such member or more than one."""
    if value is None and _nullable(node):
        return None
    members = [member for member in node.types if not isinstance(member, inspect.NoneType)]
    if len(members) > 1:
        members = [member for member in members if _fits(member, value)]
    return members[0] if len(members) == 1 else None


def _fits(node: inspect.Type, value: Any) -> bool:
    if isinstance(node, inspect.Metadata):
        return _fits(node.type, value)
    if isinstance(value, dict):
        return isinstance(node, (inspect.DictType, *OBJECTS))
    if isinstance(value, list):
        return isinstance(node, (*_EMPTY_ARRAY, inspect.NamedTupleType))
    # integers may be text: beside `str` there is no telling, so they stay numbers
    return isinstance(node, inspect.IntType | inspect.StrType)
