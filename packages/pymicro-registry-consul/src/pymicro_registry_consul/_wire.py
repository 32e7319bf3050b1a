"""Services and tags, as go-micro `registry/consul/encoding.go` and `consul.go` write them.

Each node is one service of the agent. Version, endpoints and metadata are tags: a letter, a dash, and text that is
deflated and written in hexadecimal digits. Service metadata, which go-micro does not write, has a letter of its own.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from pymicro.errors import ConfigurationError
from pymicro.plugins.toolkit import join_address, split_address
from pymicro.record import Endpoint, Node, ServiceRecord, merge
from pymicro.registry.wire import WireEndpoint

#: Bytes that one tag may have when it is inflated.
MAX_TAG: Final = 1024 * 1024

#: Seconds for which Consul keeps an instance whose check is critical, at least and beyond its TTL.
LEAST_CRITICAL: Final = 60
BEYOND_CRITICAL: Final = 5

_VERSION, _ENDPOINT, _NODE_METADATA, _SERVICE_METADATA = "v", "e", "t", "s"

#: What Consul accepts as metadata of its own, which is for people: readers use the tags.
_META_KEY: Final = re.compile(r"(?!consul-)[A-Za-z0-9_-]{1,128}")
_META_VALUE: Final = 512
_META_PAIRS: Final = 64

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode_endpoint: Final = msgspec.json.Decoder(WireEndpoint).decode
_decode_map: Final = msgspec.json.Decoder(dict[str, str]).decode


class Check(msgspec.Struct):
    """A check of a service or of the machine that it runs on."""

    status: str = msgspec.field(default="", name="Status")


class Place(msgspec.Struct):
    """The machine whose agent has a service."""

    address: str = msgspec.field(default="", name="Address")


class Instance(msgspec.Struct):
    """A service of an agent."""

    id: str = msgspec.field(name="ID")
    service: str = msgspec.field(name="Service")
    tags: list[str] | None = msgspec.field(default=None, name="Tags")
    address: str = msgspec.field(default="", name="Address")
    port: int = msgspec.field(default=0, name="Port")
    modified: int = msgspec.field(default=0, name="ModifyIndex")

    def is_what(self, body: Mapping[str, Any]) -> bool:
        """Whether it is what `write` made of a node."""
        mine = (body["address"], body["port"], body["tags"])
        return (self.address, self.port, self.tags or []) == mine


class Health(msgspec.Struct):
    """An instance with its checks and those of its machine."""

    place: Place = msgspec.field(name="Node")
    instance: Instance = msgspec.field(name="Service")
    checks: list[Check] | None = msgspec.field(default=None, name="Checks")


def write(service: ServiceRecord, ttl: float) -> dict[str, dict[str, Any]]:
    """What is registered for a record: by node id, what py-consul calls the arguments of a registration.

    Args:
        service: the record.
        ttl: seconds; 0 for no check.

    Raises:
        ConfigurationError: there are no nodes, or a text is one that Consul cannot hold.
    """
    if not service.name or not service.nodes or not all(node.id for node in service.nodes):
        raise ConfigurationError(f"{service.name!r} needs a name, and at least one node with an id")
    for part in (service.name, *(node.id for node in service.nodes)):
        if not can_be_asked_for(part):
            raise ConfigurationError(f"{part!r} cannot be asked for over HTTP: it has an empty or dotted part")
    try:
        return {node.id: _body(service, node, ttl) for node in service.nodes}
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"the record of {service.name!r} is no text: {error}") from error


def _body(service: ServiceRecord, node: Node, ttl: float) -> dict[str, Any]:
    host, port = _address(node.address)
    for text in (service.name, node.id, host):
        text.encode()
    return {
        "name": service.name,
        "service_id": node.id,
        "address": host,
        "port": port,
        "tags": list(_tags(service, node)),
        "meta": _meta(node.metadata),
        "check": _check(ttl) if ttl else None,
    }


def _tags(service: ServiceRecord, node: Node) -> Iterator[str]:
    for key, value in node.metadata.items():
        yield _tag(_NODE_METADATA, _encode({key: value}))
    for endpoint in service.endpoints:
        yield _tag(_ENDPOINT, _encode(WireEndpoint.of(endpoint)))
    yield _tag(_VERSION, service.version.encode())
    if service.metadata:
        yield _tag(_SERVICE_METADATA, _encode(service.metadata))


def _tag(letter: str, text: bytes) -> str:
    return f"{letter}-{zlib.compress(text).hex()}"


def _meta(metadata: Mapping[str, str]) -> dict[str, str]:
    fitting = {
        key: value for key, value in metadata.items() if _META_KEY.fullmatch(key) and len(value.encode()) <= _META_VALUE
    }
    return fitting if len(fitting) <= _META_PAIRS else {}


def _check(ttl: float) -> dict[str, str]:
    return {
        "TTL": duration(ttl),
        "DeregisterCriticalServiceAfter": duration(max(ttl, LEAST_CRITICAL) + BEYOND_CRITICAL),
        "Status": "passing",  # it is critical else, until the first pass: peers would see a version without nodes
    }


def duration(seconds: float) -> str:
    """The text of Go's `time.Duration`, down to milliseconds: `1m30s`, `1m0s`, `1.5s`."""
    thousandths = max(1, round(seconds * 1000))
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _address(address: str) -> tuple[str, int]:
    """Host and port; an address without a port, as that of a queue, is the host."""
    try:
        host, ports = split_address(address)
    except ConfigurationError:
        return address, 0
    return (host, ports[0]) if host and len(ports) == 1 else (address, 0)


def can_be_asked_for(text: str) -> bool:
    """Whether it can be the end of a path: Go's HTTP server redirects others to what it thinks was meant."""
    parts = text.split("/")
    return bool(text) and not any(part in ("", ".", "..") for part in parts[:-1]) and parts[-1] not in (".", "..")


# reading


def read(entries: Iterable[Health]) -> tuple[ServiceRecord, ...]:
    """The records of a service's instances, without those that have a critical check.

    Of instances with the same id, which different agents may have for a while, the newest counts.
    """
    healthy = [entry for entry in entries if not any(check.status == "critical" for check in entry.checks or ())]
    return merge(_record(entry) for entry in sorted(healthy, key=lambda entry: entry.instance.modified))


def _record(entry: Health) -> ServiceRecord:
    instance, tags = entry.instance, entry.instance.tags or ()
    host, port = instance.address or entry.place.address, instance.port
    address = join_address(host, port) if port or _is_ip(host) else host
    return ServiceRecord(
        instance.service,
        next((text.decode(errors="replace") for text in _texts(tags, _VERSION)), ""),
        _map(tags, _SERVICE_METADATA),
        tuple(_endpoints(tags)),
        (Node(instance.id, address, _map(tags, _NODE_METADATA)),),
    )


def _texts(tags: Sequence[str], letter: str) -> Iterator[bytes]:
    """What is in the tags with this letter, of the form that the first of them has: deflated, or as old ones, plain."""
    form = ""
    for tag in tags:
        if len(tag) < 2 or tag[0] != letter or tag[1] not in "-=" or tag[1] != (form or tag[1]):
            continue
        form = tag[1]
        text = tag[2:].encode(errors="replace") if form == "=" else _inflated(tag[2:])
        if text is not None:
            yield text


def _inflated(digits: str) -> bytes | None:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(bytes.fromhex(digits), MAX_TAG)
    except (ValueError, zlib.error):
        return None
    return text if inflate.eof else None


def _endpoints(tags: Sequence[str]) -> Iterator[Endpoint]:
    for text in _texts(tags, _ENDPOINT):
        try:
            endpoint = _decode_endpoint(text).endpoint()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # other programs have tags, too
        if endpoint.name:
            yield endpoint


def _map(tags: Sequence[str], letter: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in _texts(tags, letter):
        try:
            found.update(_decode_map(text))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return found


def _is_ip(host: str) -> bool:
    return bool(re.fullmatch(r"[0-9.]+", host)) or ":" in host
