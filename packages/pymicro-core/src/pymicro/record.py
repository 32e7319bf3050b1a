"""What registries hold: services, their nodes and endpoints. Shapes follow go-micro `registry/registry.go`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """The type of a request or response, for people and tools; calls never need it.

    Attributes:
        name: the field's name; the type's name at the top.
        type: the type's name; `[]T` for a sequence.
        values: the fields, to a depth of three.
    """

    name: str = ""
    type: str = ""
    values: tuple[Value, ...] = ()


class Endpoint(msgspec.Struct, frozen=True):
    """One method that a service serves.

    Attributes:
        name: `Handler.Method`.
        request, response: their types; None when unknown.
        metadata: `stream=true` for streams; `subscriber=true` and `topic` for subscribers.
    """

    name: str
    request: Value | None = None
    response: Value | None = None
    metadata: dict[str, str] = {}


class Node(msgspec.Struct, frozen=True):
    """One running instance.

    Attributes:
        id: `<service>-<server id>`, unique in the mesh.
        address: where its transport listens: `host:port`, or a queue or subject.
        metadata: among others `protocol` (`mucp`) and `transport`.
    """

    id: str
    address: str
    metadata: dict[str, str] = {}


class ServiceRecord(msgspec.Struct, frozen=True):
    """One version of a service and the nodes that run it.

    Attributes:
        name, version: the service's; version `latest` when nobody chose one.
        metadata: the service's own metadata.
        endpoints: what it serves.
        nodes: where it runs; may be empty.
    """

    name: str
    version: str = "latest"
    metadata: dict[str, str] = {}
    endpoints: tuple[Endpoint, ...] = ()
    nodes: tuple[Node, ...] = ()

    def with_nodes(self, nodes: Iterable[Node]) -> ServiceRecord:
        """The same version with other nodes."""
        return msgspec.structs.replace(self, nodes=tuple(nodes))


def merge(records: Iterable[ServiceRecord]) -> tuple[ServiceRecord, ...]:
    """One record per name and version; nodes of one version are united, the last of one id wins."""
    merged: dict[tuple[str, str], ServiceRecord] = {}
    nodes: dict[tuple[str, str], dict[str, Node]] = {}
    for record in records:
        key = (record.name, record.version)
        merged[key] = record
        nodes.setdefault(key, {}).update((node.id, node) for node in record.nodes)
    return tuple(record.with_nodes(nodes[key].values()) for key, record in merged.items())
