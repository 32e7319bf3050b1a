"""Keys and values, as go-micro `registry/etcd/etcd.go` writes them: JSON of a service with one node under each key."""

from __future__ import annotations

from typing import Final

from pymicro.errors import ConfigurationError
from pymicro.registry import ServiceRecord
from pymicro.registry.wire import write_record

#: All keys begin so; with a service's name and a slash it is the prefix of that service.
PREFIX: Final = "/micro/registry/"


def prefix(service: str | None) -> tuple[bytes, bytes]:
    """The keys of a service, or of all for None: from the first, up to and without the second."""
    start = (PREFIX if service is None else f"{PREFIX}{_part(service)}/").encode(errors="replace")
    return start, start[:-1] + b"0"  # the character after the slash


def write(service: ServiceRecord) -> dict[bytes, bytes]:
    """What is put for a record: a value by key, one for each node.

    Raises:
        ConfigurationError: there are no nodes, a name is empty, or a text cannot be written as UTF-8.
    """
    if not service.name or not service.nodes or not all(node.id for node in service.nodes):
        raise ConfigurationError(f"{service.name!r} needs a name, and at least one node with an id")
    values: dict[bytes, bytes] = {}
    try:
        for node in service.nodes:
            key = f"{PREFIX}{_part(service.name)}/{_part(node.id)}".encode()
            values[key] = write_record(service.with_nodes([node]))
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"the record of {service.name!r} is no text: {error}") from error
    return values


def _part(text: str) -> str:
    return text.replace("/", "-")
