"""The messages, as go-micro `registry/nats` writes them: JSON of a service and of what is done with it."""

from __future__ import annotations

from typing import Final

import msgspec

from pymicro.errors import ConfigurationError
from pymicro.registry import Node, ServiceRecord
from pymicro.registry.wire import read_record, write_record

#: What is asked on the query topic, and told on the watch topic.
GET: Final = "get"
LIST: Final = "list"
CREATE: Final = "create"
DELETE: Final = "delete"


class _Message(msgspec.Struct, rename="pascal"):
    service: msgspec.Raw = msgspec.Raw(b"null")
    action: str = ""


_decode: Final = msgspec.json.Decoder(_Message).decode


def get(name: str) -> bytes:
    """The question for the versions of a service."""
    service = {"name": name, "version": "", "metadata": None, "endpoints": None, "nodes": None}
    return msgspec.json.encode({"Service": service, "Action": GET})


def list_all() -> bytes:
    """The question for all services."""
    return msgspec.json.encode({"Service": None, "Action": LIST})


def record(service: ServiceRecord) -> bytes:
    """The answer for a record that this process registered.

    Raises:
        ConfigurationError: there are no nodes, a name is empty, or a text cannot be written as UTF-8.
    """
    if not service.name or not service.nodes or not all(node.id for node in service.nodes):
        raise ConfigurationError(f"{service.name!r} needs a name, and at least one node with an id")
    try:
        return write_record(service)
    except ValueError as error:
        raise ConfigurationError(f"the record of {service.name!r} is no text: {error}") from error


def create(service: bytes) -> bytes:
    """What is told of a record that is registered, or still is."""
    return b'{"Service":%b,"Action":"create"}' % service


def delete(service: ServiceRecord) -> bytes:
    """What is told of a record that is registered no more; as from Go, no more than its nodes' ids and addresses."""
    nodes = tuple(Node(node.id, node.address) for node in service.nodes)
    bare = write_record(ServiceRecord(service.name, service.version, nodes=nodes))
    return b'{"Service":%b,"Action":"delete"}' % bare


def read(data: bytes) -> tuple[str, ServiceRecord | None]:
    """The action and the service of a question or of what is told; `""` for anything else."""
    try:
        message = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", None
    return message.action, read_record(bytes(message.service))
