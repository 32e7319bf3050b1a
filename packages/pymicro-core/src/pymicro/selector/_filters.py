"""Filters, as go-micro `selector/filter.go` has them. Their text tells people what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pymicro.record import ServiceRecord
from pymicro.selector._types import Filter


class _Version(msgspec.Struct, frozen=True):
    version: str

    def __call__(self, services: Sequence[ServiceRecord]) -> Sequence[ServiceRecord]:
        return [record for record in services if record.version == self.version]

    def __str__(self) -> str:
        return f"version {self.version}"


class _Endpoint(msgspec.Struct, frozen=True):
    name: str

    def __call__(self, services: Sequence[ServiceRecord]) -> Sequence[ServiceRecord]:
        return [record for record in services if any(endpoint.name == self.name for endpoint in record.endpoints)]

    def __str__(self) -> str:
        return f"endpoint {self.name}"


class _Label(msgspec.Struct, frozen=True):
    key: str
    value: str

    def __call__(self, services: Sequence[ServiceRecord]) -> Sequence[ServiceRecord]:
        return [
            record.with_nodes(node for node in record.nodes if node.metadata.get(self.key) == self.value)
            for record in services
        ]

    def __str__(self) -> str:
        return f"label {self.key}={self.value}"


def version(version: str) -> Filter:
    """Only nodes of this version."""
    return _Version(version)


def endpoint(name: str) -> Filter:
    """Only versions that serve this endpoint, by its full name (`Greeter.Hello`)."""
    return _Endpoint(name)


def label(key: str, value: str) -> Filter:
    """Only nodes whose metadata has this value."""
    return _Label(key, value)
