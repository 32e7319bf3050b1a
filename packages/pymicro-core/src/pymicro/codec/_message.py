"""How one class looks in JSON when that is not how it looks in Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec

from pymicro.codec._shapes import is_protobuf, is_pydantic

C = TypeVar("C", bound=type)

Rename = Literal["camel", "pascal"] | Mapping[str, str]
Integers = Literal["number", "string"]

_MARK: Final = "__pymicro_message__"


class MessageOptions(msgspec.Struct, frozen=True):
    """What `@message` said about a class."""

    rename: Rename | None = None
    integers: Integers = "number"

    def wire_name(self, name: str) -> str:
        """The name in JSON of the field `name`."""
        if self.rename is None:
            return name
        if isinstance(self.rename, Mapping):
            return self.rename.get(name, name)
        joined = re.sub(r"(?<=[^_])_+([^_])", lambda match: match[1].upper(), name)
        return joined[:1].upper() + joined[1:] if self.rename == "pascal" else joined


def message(*, rename: Rename | None = None, integers: Integers = "number") -> Callable[[C], C]:
    """Say how a dataclass, msgspec struct, attrs class or TypedDict looks in JSON.

    `@message(rename="camel", integers="string")` is the JSON of protobuf messages, as proto3 defines it. The class
    itself stays as it is. It costs time: bodies with such a class in them take a few microseconds more.

    Args:
        rename: `camel` writes `user_name` as `userName`, `pascal` as `UserName` (a Go struct without tags), a
            mapping gives the names one by one. Both the new name and the Python one are read. None keeps names.
        integers: `string` writes `int` fields as text, which keeps them whole in JavaScript. Text and numbers are read.

    Raises:
        TypeError: the class is a Pydantic model or a protobuf message, which have their own means for this.
    """
    if not (rename is None or isinstance(rename, Mapping) or rename in ("camel", "pascal")):
        raise TypeError(f"rename is 'camel', 'pascal' or a mapping, not {rename!r}")
    if integers not in ("number", "string"):
        raise TypeError(f"integers is 'number' or 'string', not {integers!r}")

    def mark(cls: C) -> C:
        if is_pydantic(cls) or is_protobuf(cls):
            raise TypeError(f"@message cannot mark {cls.__name__}: its own library says how it looks in JSON")
        setattr(cls, _MARK, MessageOptions(rename, integers))
        return cls

    return mark


def options_of(cls: Any) -> MessageOptions | None:
    """What `@message` said about the class, or about one that it inherits from; None for nothing."""
    found: MessageOptions | None = getattr(cls, _MARK, None)
    return found
