"""What a node's TXT record carries: JSON, deflated, in hexadecimal, cut into strings.

The form is go-micro's (`registry/mdns_registry.go`); its JSON keys are capitalised.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from pymicro.registry import Endpoint, Value

#: Bytes of JSON that are read at most: a small packet can inflate to a thousand times its size.
MAX_JSON: Final = 1024 * 1024

#: Levels of nested types that are read; go-micro writes three.
MAX_DEPTH: Final = 8

_CHUNK: Final = 255


class Payload(msgspec.Struct, frozen=True):
    """A node's TXT record, read.

    Attributes:
        service, version: what the node runs.
        metadata: the node's.
        endpoints: the service's.
        service_metadata: the service's. Go Micro has no place for it; its peers pass over ours.
    """

    service: str
    version: str = ""
    metadata: dict[str, str] = {}
    endpoints: tuple[Endpoint, ...] = ()
    service_metadata: dict[str, str] = {}


class _Value(msgspec.Struct):
    name: str = ""
    type: str = ""
    values: list[_Value] | None = None


class _Endpoint(msgspec.Struct):
    request: _Value | None = None
    response: _Value | None = None
    metadata: dict[str, str] | None = None
    name: str = ""


class _Text(msgspec.Struct, rename="pascal"):
    metadata: dict[str, str] | None = None
    service: str = ""
    version: str = ""
    endpoints: list[_Endpoint] | None = None
    service_metadata: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Text).decode


def write(payload: Payload) -> tuple[bytes, ...]:
    """The strings of the TXT record, each at most 255 bytes."""
    endpoints = [_endpoint_to_wire(endpoint) for endpoint in payload.endpoints]
    own = payload.service_metadata or msgspec.UNSET
    text = _encode(_Text(payload.metadata, payload.service, payload.version, endpoints, own))
    data = zlib.compress(text, 9).hex().encode()
    return tuple(data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK))


def read(strings: Iterable[bytes]) -> Payload:
    """The payload in the strings of a TXT record.

    Raises:
        ValueError: it is none, or inflates to more than 1 MiB.
    """
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(bytes.fromhex(b"".join(strings).decode("ascii")), MAX_JSON)
        if not inflate.eof:
            raise ValueError("the payload is cut off or too large")
        wire = _decode(text)
    except (zlib.error, msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a payload: {error}") from error
    endpoints = tuple(_endpoint_from_wire(endpoint) for endpoint in wire.endpoints or ())
    return Payload(wire.service, wire.version, wire.metadata or {}, endpoints, wire.service_metadata or {})


def _endpoint_to_wire(endpoint: Endpoint) -> _Endpoint:
    return _Endpoint(
        _value_to_wire(endpoint.request), _value_to_wire(endpoint.response), endpoint.metadata, endpoint.name
    )


def _value_to_wire(value: Value | None) -> _Value | None:
    if value is None:
        return None
    return _Value(value.name, value.type, [v for v in map(_value_to_wire, value.values) if v] or None)


def _endpoint_from_wire(wire: _Endpoint) -> Endpoint:
    return Endpoint(wire.name, _value_from_wire(wire.request), _value_from_wire(wire.response), wire.metadata or {})


def _value_from_wire(wire: _Value | None) -> Value | None:
    return None if wire is None else Value(wire.name, wire.type, _values(wire.values, MAX_DEPTH))


def _values(wires: Sequence[_Value] | None, depth: int) -> tuple[Value, ...]:
    if not wires or not depth:
        return ()
    return tuple(Value(wire.name, wire.type, _values(wire.values, depth - 1)) for wire in wires)
