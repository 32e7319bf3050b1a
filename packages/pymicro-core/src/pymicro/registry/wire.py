"""Records as Go Micro's registries write them in JSON: `registry.Service`, `Node`, `Endpoint` and `Value`.

For plugins whose peers read the same records. What Go writes as `null` is read as empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from pymicro.record import Endpoint, Node, ServiceRecord, Value

__all__ = ["MAX_DEPTH", "WireEndpoint", "WireValue", "read_record", "write_record"]

#: Levels of nested types that are read; go-micro writes three.
MAX_DEPTH: Final = 8


class WireValue(msgspec.Struct):
    """A `Value` in JSON."""

    name: str = ""
    type: str = ""
    values: list[WireValue] | None = None

    @classmethod
    def of(cls, value: Value | None) -> WireValue | None:
        """What is written for a value; None stays None."""
        if value is None:
            return None
        return cls(value.name, value.type, [each for each in map(cls.of, value.values) if each] or None)

    def value(self, depth: int = MAX_DEPTH) -> Value:
        """What was read, down to `depth` levels below this one."""
        return Value(self.name, self.type, _values(self.values, depth))


class WireEndpoint(msgspec.Struct):
    """An `Endpoint` in JSON."""

    request: WireValue | None = None
    response: WireValue | None = None
    metadata: dict[str, str] | None = None
    name: str = ""

    @classmethod
    def of(cls, endpoint: Endpoint) -> WireEndpoint:
        """What is written for an endpoint."""
        return cls(WireValue.of(endpoint.request), WireValue.of(endpoint.response), endpoint.metadata, endpoint.name)

    def endpoint(self) -> Endpoint:
        """What was read."""
        request, response = (None if each is None else each.value() for each in (self.request, self.response))
        return Endpoint(self.name, request, response, self.metadata or {})


class _Node(msgspec.Struct):
    metadata: dict[str, str] | None = None
    id: str = ""
    address: str = ""


class _Service(msgspec.Struct):
    name: str = ""
    version: str = ""
    metadata: dict[str, str] | None = None
    endpoints: list[WireEndpoint] | None = None
    nodes: list[_Node] | None = None


_encode: Final = msgspec.json.Encoder(order="deterministic").encode  # Go sorts the keys of maps
_decode: Final = msgspec.json.Decoder(_Service).decode


def write_record(record: ServiceRecord) -> bytes:
    """The JSON of a record with all its nodes.

    Raises:
        ValueError: a text in it cannot be written as UTF-8.
    """
    endpoints = [WireEndpoint.of(endpoint) for endpoint in record.endpoints] or None
    nodes = [_Node(node.metadata or None, node.id, node.address) for node in record.nodes]
    return _encode(_Service(record.name, record.version, record.metadata or None, endpoints, nodes))


def read_record(data: bytes) -> ServiceRecord | None:
    """The record in this JSON; None for anything else, and for a record without a name."""
    try:
        wire = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not wire.name:
        return None
    endpoints = tuple(endpoint.endpoint() for endpoint in wire.endpoints or ())
    nodes = tuple(Node(node.id, node.address, node.metadata or {}) for node in wire.nodes or ())
    return ServiceRecord(wire.name, wire.version, wire.metadata or {}, endpoints, nodes)


def _values(wires: Sequence[WireValue] | None, depth: int) -> tuple[Value, ...]:
    return tuple(wire.value(depth - 1) for wire in wires) if wires and depth else ()
