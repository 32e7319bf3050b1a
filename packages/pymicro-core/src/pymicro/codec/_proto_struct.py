"""Protobuf messages as the JSON that Go's `encoding/json` makes of the structs that protoc-gen-go generates.

Names are those of the .proto file, integers and enums are numbers, well-known types have no special form, and a
oneof is a field of its own with Go's spelling: `"Kind": {"Name": "n"}`, null when nothing is chosen.
"""

from __future__ import annotations

import base64
import re
import struct
from typing import Any, Final

from pymicro.codec._faults import Misfit, join

_FLOAT: Final = 2  # FieldDescriptor.TYPE_FLOAT
_BYTES: Final = 12  # FieldDescriptor.TYPE_BYTES
_REPEATED: Final = 3  # FieldDescriptor.LABEL_REPEATED


def dump_struct(message: Any) -> dict[str, Any]:
    """The message as a JSON object; fields without a value are left out, as Go's `omitempty` does."""
    values = {field.number: value for field, value in message.ListFields()}
    dumped: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        oneof = _oneof(field)
        if oneof is not None:
            dumped.setdefault(_go_name(oneof.name), None)
        if field.number in values:
            value = _dump_field(field, values[field.number])
            if oneof is None:
                dumped[field.name] = value
            else:
                dumped[_go_name(oneof.name)] = {_go_name(field.name): value}
    return dumped


def _dump_field(field: Any, value: Any) -> Any:
    if _is_map(field):
        inner = field.message_type.fields_by_name["value"]
        return {_key_text(key): _dump_value(inner, item) for key, item in value.items()}
    if _is_repeated(field):
        return [_dump_value(field, item) for item in value]
    return _dump_value(field, value)


def _dump_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return dump_struct(value)
    return _shortest(value) if field.type == _FLOAT else value


def _shortest(value: float) -> float:
    """The shortest decimal that is the same 32-bit float, as Go writes it."""
    single = struct.pack("f", value)
    candidates = (float(f"{value:.{digits}g}") for digits in range(6, 9))
    return next((candidate for candidate in candidates if struct.pack("f", candidate) == single), value)


def _key_text(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def load_struct(cls: type[Any], value: Any, *, strict: bool) -> Any:
    """The message that a JSON object stands for.

    Args:
        cls: the message's class.
        value: the decoded JSON.
        strict: whether a name that the message does not have is an error.

    Raises:
        Misfit, TypeError, ValueError: it stands for none.
    """
    message = cls()
    _fill(message, value, strict, "")
    return message


def _fill(message: Any, value: Any, strict: bool, path: str) -> None:
    if not isinstance(value, dict):
        raise Misfit(path, f"expected object, got {type(value).__name__}")
    descriptor = message.DESCRIPTOR
    # a well-known type with other names is in proto3's form, which is not to be lost as unknown fields
    strict = strict or descriptor.file.package == "google.protobuf"
    plain = [field for field in descriptor.fields if not (strict and _oneof(field))]
    fields = {name: field for field in plain for name in (field.name, field.json_name)}
    oneofs = {_go_name(oneof.name): oneof for oneof in descriptor.oneofs}
    for name, item in value.items():
        inner = join(path, name)
        if item is None:
            continue
        if name in fields:
            _set(message, fields[name], item, strict, inner)
        elif name in oneofs and isinstance(item, dict):
            members = {_go_name(field.name): field for field in oneofs[name].fields}
            for member, chosen in item.items():
                _set(message, _known(members, member, inner), chosen, strict, join(inner, member))
        elif strict:
            raise Misfit(inner, "unknown field")


def _known(members: dict[str, Any], name: str, path: str) -> Any:
    field = members.get(name)
    if field is None:
        raise Misfit(path, f"has no member {name}")
    return field


def _set(message: Any, field: Any, value: Any, strict: bool, path: str) -> None:
    try:
        if _is_map(field):
            _set_map(getattr(message, field.name), field, value, strict, path)
        elif _is_repeated(field):
            _extend(getattr(message, field.name), field, value, strict, path)
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _fill(inner, value, strict, path)
        else:
            setattr(message, field.name, _scalar(field, value))
    except Misfit:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:  # what protobuf raises, and unknown enums
        raise Misfit(path, f"not a value of this field: {error}") from error


def _extend(container: Any, field: Any, items: Any, strict: bool, path: str) -> None:
    if not isinstance(items, list):
        raise Misfit(path, f"expected array, got {type(items).__name__}")
    for index, item in enumerate(items):
        if field.message_type is not None:
            _fill(container.add(), item, strict, f"{path}[{index}]")
        else:
            container.append(_scalar(field, item))


def _set_map(container: Any, field: Any, items: Any, strict: bool, path: str) -> None:
    if not isinstance(items, dict):
        raise Misfit(path, f"expected object, got {type(items).__name__}")
    keys, values = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
    for name, item in items.items():
        key = _key(keys, name)
        if values.message_type is not None:
            _fill(container[key], item, strict, join(path, name))
        else:
            container[key] = _scalar(values, item)


def _key(field: Any, name: str) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING:
        return name
    if field.cpp_type == field.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(name, name)
    return int(name)


def _scalar(field: Any, value: Any) -> Any:
    if field.type == _BYTES:
        return base64.b64decode(value, validate=True)
    if field.enum_type is not None and isinstance(value, str):
        return field.enum_type.values_by_name[value].number
    integral = field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
    return int(value) if integral and isinstance(value, str) else value


def _oneof(field: Any) -> Any:
    """The oneof that the field is a member of; None for the one that stands behind `optional`."""
    oneof = field.containing_oneof
    return None if oneof is None or oneof.name == f"_{field.name}" else oneof


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _is_repeated(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)
    # `label` says it in protobuf before 6.31 and is deprecated after
    return bool(field.label == _REPEATED if repeated is None else repeated)


def _go_name(name: str) -> str:
    """The name that protoc-gen-go gives to a field."""
    return re.sub(r"(?:^|_)([a-z])", lambda match: match[1].upper(), name)
