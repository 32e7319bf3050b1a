"""Protobuf messages in JSON: proto3's own mapping, and the one that Go's `encoding/json` makes of generated structs.

Both are on Go Micro's wire: the first under `application/json` since v5.15, the second there before and in json-rpc
always. Both are read everywhere; each codec writes the one that its peers expect. Protobuf is not imported before
the first message comes along.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from functools import cache
from typing import Any, Final

import msgspec

from pymicro.codec._faults import Misfit
from pymicro.codec._numbers import refuse_nan
from pymicro.codec._proto_struct import dump_struct, load_struct

#: Messages that JSON shows as something else than an object.
_ANY_JSON: Final = frozenset({"google.protobuf.Value", "google.protobuf.ListValue"})


@cache
def _json_format() -> Any:
    return importlib.import_module("google.protobuf.json_format")


class ProtoJson:
    """Proto3's JSON mapping: lowerCamelCase names, 64-bit integers as text, enums by name. Unknown fields are errors.

    See https://protobuf.dev/programming-guides/json/.
    """

    def dump(self, message: Any) -> bytes:
        """The message as JSON."""
        return msgspec.json.encode(_json_format().MessageToDict(message))

    def load(self, cls: type[Any], data: bytes) -> Any:
        """The message that the JSON stands for.

        Raises:
            Exception: it stands for none; of what kind depends on protobuf.
        """
        try:
            return _load_proto3(cls, data)
        except Exception:
            import json  # for its `object_pairs_hook`, which msgspec does not have

            with suppress(Exception):  # neither form: the error of the one that is usual here says more
                return load_struct(cls, json.loads(data, object_pairs_hook=_unique), strict=True)
            raise


class StructJson(ProtoJson):
    """What Go's `encoding/json` makes of a generated struct; see `_proto_struct`. Unknown fields are ignored."""

    def dump(self, message: Any) -> bytes:
        fields = dump_struct(message)
        refuse_nan(fields)
        return msgspec.json.encode(fields)

    def load(self, cls: type[Any], data: bytes) -> Any:
        try:
            return load_struct(cls, msgspec.json.decode(data), strict=False)
        except Exception:
            with suppress(Exception):  # as above
                return _load_proto3(cls, data)
            raise


def _load_proto3(cls: Any, data: bytes) -> Any:
    if data.lstrip()[:1] == b"[" and cls.DESCRIPTOR.full_name not in _ANY_JSON:
        raise Misfit("", "expected object, got array")
    return _json_format().Parse(data, cls())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Misfit("", "a field is there twice")
    return fields
