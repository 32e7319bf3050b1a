"""Which kind of type an annotation is. Libraries are recognised by what their classes have, never imported."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Final

from msgspec import inspect

#: What `isinstance` takes as its second argument.
Classes = type | tuple[type, ...]

#: Nodes of msgspec's type tree that are read from a JSON object by field.
OBJECTS: Final = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)


def name_of(hint: Any) -> str:
    """The annotation as a person writes it: `HelloRequest`, `list[int]`; protobuf messages by their full name."""
    full_name = getattr(getattr(hint, "DESCRIPTOR", None), "full_name", None)
    if isinstance(full_name, str):
        return full_name
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def is_protobuf(hint: Any) -> bool:
    """Whether the annotation is a class that protoc generated."""
    return isinstance(hint, type) and hasattr(hint, "DESCRIPTOR") and hasattr(hint, "SerializeToString")


def is_pydantic(hint: Any) -> bool:
    """Whether the annotation is a Pydantic 2 model, or a dataclass of Pydantic's."""
    return isinstance(hint, type) and hasattr(hint, "__pydantic_validator__")


def accepted(hint: Any) -> Classes:
    """What `isinstance` can check of a value with this annotation; `object` where it can check nothing."""
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    origin: Any = typing.get_origin(hint)
    if hint is Any:
        return object
    if origin is typing.Annotated:
        return accepted(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        members = [accepted(member) for member in typing.get_args(hint)]
        return tuple(cls for member in members for cls in (member if isinstance(member, tuple) else (member,)))
    plain = origin or hint
    if plain is float:
        return (float, int)
    if typing.is_typeddict(plain):
        return dict
    return plain if isinstance(plain, type) and not getattr(plain, "_is_protocol", False) else object


def nodes(root: inspect.Type) -> Iterator[inspect.Type]:
    """Every node of a type tree once; trees of recursive types have cycles."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting += _children(node)


def _children(node: inspect.Type) -> tuple[inspect.Type, ...]:
    if isinstance(node, inspect.CollectionType):
        return (node.item_type,)
    if isinstance(node, inspect.TupleType):
        return node.item_types
    if isinstance(node, inspect.DictType):
        return (node.key_type, node.value_type)
    if isinstance(node, inspect.UnionType):
        return node.types
    if isinstance(node, inspect.Metadata):
        return (node.type,)
    if isinstance(node, (*OBJECTS, inspect.NamedTupleType)):
        return tuple(field.type for field in node.fields)
    return ()
