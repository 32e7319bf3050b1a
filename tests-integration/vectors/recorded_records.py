"""Records of services, from JSON as Go writes it."""

from __future__ import annotations

from typing import Any

from pymicro.registry import Endpoint, Node, ServiceRecord, Value


def record_of(service: dict[str, Any]) -> ServiceRecord:
    """A record from its JSON, which may say null for what is empty."""
    return ServiceRecord(
        service["name"],
        service["version"],
        service["metadata"] or {},
        tuple(
            Endpoint(each["name"], value_of(each["request"]), value_of(each["response"]), each["metadata"] or {})
            for each in service["endpoints"] or ()
        ),
        tuple(Node(each["id"], each["address"], each["metadata"] or {}) for each in service["nodes"] or ()),
    )


def value_of(value: dict[str, Any] | None) -> Value | None:
    """The type of a request or response, from its JSON."""
    if value is None:
        return None
    return Value(value["name"], value["type"], tuple(v for v in map(value_of, value["values"] or ()) if v))
