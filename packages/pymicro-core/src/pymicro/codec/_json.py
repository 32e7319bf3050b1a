"""`application/json`: one JSON value and a newline, as go-micro `codec/json` has it."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec
from msgspec import inspect

from pymicro.codec._adapt import admit, has_messages, present
from pymicro.codec._base import BaseCodec
from pymicro.codec._contract import Decode, Encode
from pymicro.codec._faults import Misfit, cannot_encode, explain
from pymicro.codec._numbers import refuse_nan
from pymicro.codec._proto_json import ProtoJson
from pymicro.codec._shapes import accepted, is_protobuf, is_pydantic, name_of, nodes
from pymicro.codec._tolerant import strict, tolerant
from pymicro.errors import InvalidHandler

_to_json: Final = msgspec.json.Encoder().encode
_from_json: Final = msgspec.json.Decoder().decode


class JsonCodec(BaseCodec):
    """JSON of dataclasses, msgspec structs, attrs classes, Pydantic models, TypedDicts, protobuf messages, and so on.

    Names are exact. Unknown fields are ignored, except in protobuf messages and where a class forbids them. `bytes`
    are base64. Null is the default of a field that has one, and an empty list, dict or bytes, as Go sends it.
    An empty body is read as `{}`, and what follows the first value is ignored. Protobuf messages have the JSON mapping
    of proto3, Pydantic models the one of their own configuration, by alias.
    """

    empty = b"{}\n"
    _proto: ClassVar[ProtoJson] = ProtoJson()

    def _encoder(self, type: Any) -> Encode:
        cls = accepted(type)
        write, floats = self._writer(type)

        def encode(value: Any) -> bytes:
            if not isinstance(value, cls):
                raise cannot_encode(type, Misfit("", f"got {value.__class__.__name__}"))
            try:
                data = write(value)
                if floats and b"null" in data:
                    refuse_nan(value)
            except Exception as error:  # models and messages raise whatever they like
                raise cannot_encode(type, error) from error
            return data + b"\n"

        return encode

    def _writer(self, hint: Any) -> tuple[Encode, bool]:
        """What writes values of the type; whether it writes a NaN as null."""
        if is_pydantic(hint):
            return _pydantic_json, False
        if is_protobuf(hint):
            return self._proto.dump, False
        tree = self._tree(hint)
        floats = any(isinstance(node, inspect.FloatType | inspect.AnyType) for node in nodes(tree))
        encode = msgspec.json.Encoder(enc_hook=self._to_raw).encode
        if has_messages(tree):
            return lambda value: _to_json(present(tree, _from_json(encode(value)))), floats
        return encode, floats

    def _decoder(self, type: Any) -> Decode:
        if is_pydantic(type):
            return tolerant(type, strict(type.__pydantic_validator__.validate_json))
        if is_protobuf(type):
            return tolerant(type, strict(lambda data: self._proto.load(type, data)))
        tree = self._tree(type)
        read = msgspec.json.Decoder(type, dec_hook=self._from_value).decode

        def read_adapted(data: bytes) -> Any:
            return read(_to_json(admit(tree, _from_json(data))))

        return tolerant(type, read_adapted) if has_messages(tree) else tolerant(type, read, read_adapted)

    def _tree(self, hint: Any) -> inspect.Type:
        """msgspec's view of the type; every class in it can be carried."""
        try:
            tree = inspect.type_info(hint)
        except (TypeError, NameError) as error:
            raise InvalidHandler(f"JSON cannot carry {name_of(hint)}: {error}") from error
        for node in nodes(tree):
            if isinstance(node, inspect.CustomType) and not _is_known(node.cls):
                raise InvalidHandler(f"JSON cannot carry {name_of(hint)}: it does not know {name_of(node.cls)}")
            if isinstance(node, inspect.DataclassType) and is_pydantic(node.cls):
                raise InvalidHandler(
                    f"JSON cannot carry {name_of(hint)}: {name_of(node.cls)} is a dataclass of Pydantic's inside "
                    "another type, where its checks would not run; make it a BaseModel"
                )
        return tree

    def _to_raw(self, value: Any) -> msgspec.Raw:
        """For msgspec: the JSON of an object that it does not know."""
        if is_pydantic(type(value)):
            return msgspec.Raw(_pydantic_json(value))
        if is_protobuf(type(value)):
            return msgspec.Raw(self._proto.dump(value))
        raise Misfit("", f"{name_of(type(value))} has no form in JSON")

    def _from_value(self, cls: Any, value: Any) -> Any:
        """For msgspec: an object of a class that it does not know."""
        data = _to_json(value)
        try:
            return cls.__pydantic_validator__.validate_json(data) if is_pydantic(cls) else self._proto.load(cls, data)
        except Misfit:
            raise
        except Exception as error:  # msgspec names the field for a ValueError only
            raise explain(error) from error


def _pydantic_json(value: Any) -> bytes:
    data: bytes = value.__pydantic_serializer__.to_json(value, by_alias=True)
    return data


def _is_known(cls: Any) -> bool:
    return cls is msgspec.UnsetType or is_pydantic(cls) or is_protobuf(cls)
