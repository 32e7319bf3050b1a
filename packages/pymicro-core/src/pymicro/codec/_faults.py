"""Why a body does not fit, in plain words."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from pymicro.codec._shapes import name_of
from pymicro.errors import BadRequest

#: msgspec ends its messages with the path of the field: ``- at `$.items[0].name` ``, or ``- at `key` in `$.labels` ``.
_PATH: Final = r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`$"
_MISSING: Final = r"Object missing required field `(?P<name>[^`]*)`"
#: The JSON reader of protobuf nests its messages, one for each level.
_PROTO_FIELD: Final = r"Failed to parse (?P<name>\S+) field: "
_PROTO_UNKNOWN: Final = r'has no field named "(?P<name>[^"]*)"'
_PROTO_PATH: Final = r' at "?\w+\.?(?P<path>[^" ]*)"?$'


class Misfit(ValueError):
    """A value does not fit its type.

    Args:
        path: where, such as `items[0].name`; empty for the whole value.
        what: what is wrong there.
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(path, what)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" if self.path else self.what


def does_not_fit(hint: Any, error: Exception) -> BadRequest:
    """The error for a body that cannot be read as `hint`."""
    return BadRequest(f"body does not fit {name_of(hint)}: {explain(error)}")


def cannot_encode(hint: Any, error: Exception) -> BadRequest:
    """The error for a value that cannot be written as `hint`."""
    return BadRequest(f"cannot encode {name_of(hint)}: {explain(error)}")


def explain(error: BaseException) -> Misfit:
    """What an exception of msgspec, Pydantic, protobuf or a user's own class says of a body."""
    if isinstance(error, Misfit):
        return error
    if isinstance(error, msgspec.ValidationError):
        return _of_msgspec(error)
    if isinstance(error, UnicodeDecodeError):
        return Misfit("", "text that is no UTF-8")
    if isinstance(error, RecursionError):
        return Misfit("", "nested too deeply")
    faults = getattr(error, "errors", None)
    if type(error).__name__ == "ValidationError" and callable(faults):
        return _of_pydantic(faults(include_url=False, include_context=False, include_input=False))
    if type(error).__module__.startswith("google.protobuf"):
        return _of_protobuf(str(error))
    text = str(error)
    return Misfit("", text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}")


def join(path: str, inner: str) -> str:
    """The path of a field inside a field."""
    return path + inner if not path or not inner or inner.startswith("[") else f"{path}.{inner}"


def _of_msgspec(error: msgspec.ValidationError) -> Misfit:
    text, path, key = str(error), "", ""
    found = re.search(_PATH, text)
    if found is not None:
        text, path = text[: found.start()], found["path"].removeprefix(".")
        key = "key: " if found["key"] else ""
    if error.__cause__ is not None:  # a class's own check, or a model inside
        inner = explain(error.__cause__)
        return Misfit(join(path, inner.path), inner.what)
    missing = re.fullmatch(_MISSING, text)
    if missing is not None:
        return Misfit(join(path, missing["name"]), "required field is missing")
    return Misfit(path, key + _lowered(text.replace("`", "")))


def _of_pydantic(faults: list[dict[str, Any]]) -> Misfit:
    first = faults[0]
    path = ""
    for part in first["loc"]:
        path = join(path, f"[{part}]" if isinstance(part, int) else str(part))
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Misfit(path, _lowered(str(first["msg"])) + more)


def _of_protobuf(text: str) -> Misfit:
    text = text.partition("\n")[0]
    path = ""
    while (found := re.match(_PROTO_FIELD, text)) is not None:
        path, text = join(path, found["name"]), text[found.end() :]
    text = text.rstrip(".")
    whole = re.search(_PROTO_PATH, text)  # most messages say it again, with indexes
    if whole is not None:
        text, path = text[: whole.start()], whole["path"] or path
    unknown = re.search(_PROTO_UNKNOWN, text)
    if unknown is not None:
        return Misfit(join(path, unknown["name"]), "unknown field")
    return Misfit(path, _lowered(text))


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
