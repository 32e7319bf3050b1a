"""What DNS packets say of services; no I/O.

The form is go-micro's (`registry/mdns_registry.go`, `internal/util/mdns/`): one node in a packet, answers that repeat
the question, in a domain of its own.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from pymicro.errors import ConfigurationError
from pymicro.plugins.toolkit import join_address, split_address
from pymicro.registry import Node, ServiceRecord
from pymicro_registry_mdns import _dns, _payload
from pymicro_registry_mdns._dns import Question

#: Seconds that peers may keep a record. Go Micro writes it too, and goes by answers and goodbyes instead.
TTL: Final = 120

#: Bytes of the largest UDP datagram over IPv4.
MAX_PACKET: Final = 65_507

#: Bytes of strings and their lengths in a TXT record. The rest is for names, at most 255 bytes each.
MAX_TEXT: Final = MAX_PACKET - 1024 - 1024

_LISTING: Final = "_services"
_ENUMERATION: Final = "_services._dns-sd._udp"
_LISTING_PORT: Final = 9999


class Entry(msgspec.Struct, frozen=True):
    """What is told of one node.

    Attributes:
        service: the service's name.
        instance: the node's full name, `<node id>.<service>.<domain>`.
        address: IP address, 4 or 16 bytes.
        port: 1 to 65535.
        strings: the TXT record.
    """

    service: str
    instance: str
    address: bytes
    port: int
    strings: tuple[bytes, ...]


class Answer(msgspec.Struct, frozen=True):
    """A response or an announcement, understood.

    Attributes:
        nodes: records of one node each, by the node's full name.
        gone: full names of nodes that say goodbye.
        services: names of services, from the listing.
    """

    nodes: dict[str, ServiceRecord] = {}
    gone: tuple[str, ...] = ()
    services: tuple[str, ...] = ()

    def about(self, service: str | None) -> dict[str, ServiceRecord]:
        """What it says of one service, by node; for None, bare records of all services, by name."""
        if service is not None:
            return {instance: record for instance, record in self.nodes.items() if record.name == service}
        names = {*self.services, *(record.name for record in self.nodes.values())}
        return {name: ServiceRecord(name) for name in names}


class Wire:
    """Writes and reads the packets of one domain.

    Args:
        domain: the DNS domain, such as `micro`.
        host: this machine's name, the target of SRV records. It only links records within a packet.

    Raises:
        ConfigurationError: the domain is no DNS name.
    """

    def __init__(self, domain: str, host: str) -> None:
        self.domain = domain.strip(".")
        self._mark = _dns.name(self.domain, "the domain")
        self._host = _host_name(host)
        self._listing = f"{_LISTING}.{self.domain}"

    def entries(self, service: ServiceRecord) -> tuple[Entry, ...]:
        """What is to be told of the nodes of `service`.

        Raises:
            ConfigurationError: a name, an address or the size does not fit.
        """
        if not service.nodes:
            raise ConfigurationError(f"service {service.name!r} cannot be registered without a node")
        if service.name.split(".")[0] == _LISTING:
            raise ConfigurationError(
                f"service {service.name!r}: mDNS keeps names that begin with '_services' to itself"
            )
        return tuple(self._entry(service, node) for node in service.nodes)

    def _entry(self, service: ServiceRecord, node: Node) -> Entry:
        _dns.name(f"{service.name}.{self._listing}", f"service {service.name!r}")
        instance = f"{node.id}.{service.name}.{self.domain}"
        _check_instance(instance, node)
        address, port = _address(node)
        strings = _payload.write(
            _payload.Payload(service.name, service.version, node.metadata, service.endpoints, service.metadata)
        )
        size = sum(1 + len(string) for string in strings)
        if size > MAX_TEXT:
            raise ConfigurationError(
                f"node {node.id!r}: its metadata and endpoints take {size} bytes, and a DNS packet holds {MAX_TEXT}: "
                "describe fewer endpoints or choose another registry"
            )
        return Entry(service.name, instance, address, port, strings)

    def can_exist(self, service: str) -> bool:
        """Whether a service can have this name here at all; nobody needs to be asked about others."""
        try:
            _dns.name(f"{service}.{self._listing}")
        except ConfigurationError:
            return False
        return True

    def query(self, service: str | None) -> bytes:
        """The question for the nodes of a service that can exist; for None, that for the names of all services."""
        packet = _dns.Packet(random.SystemRandom().getrandbits(16), 0)
        packet.question(Question(self._listing if service is None else f"{service}.{self.domain}", _dns.PTR))
        return packet.done()

    def answers(self, question: Question, entries: Mapping[str, Entry]) -> Iterator[bytes]:
        """The packets that answer a question from `entries`, which are by full name; none if it concerns others."""
        if question.type not in (_dns.PTR, _dns.ANY) or question.klass & _dns.CLASS not in (_dns.IN, _dns.ANY):
            return
        services = sorted({entry.service for entry in entries.values()})
        if question.name == self._listing:
            for service in services:
                yield self._answer(question, f"{service}.{self._listing}", _LISTING_PORT, bytes(4), ())
        elif question.name == f"{_ENUMERATION}.{self.domain}":
            for service in services:
                yield self._pointer(question, f"{service}.{self.domain}").done()
        else:
            for entry in entries.values():
                if question.name == f"{entry.service}.{self.domain}":
                    yield self._answer(question, entry.instance, entry.port, entry.address, entry.strings)

    def announcement(self, entry: Entry, *, ttl: int = TTL) -> bytes:
        """What is told unasked: that a node is there, or with TTL 0 that it goes."""
        packet = _dns.Packet(0, _dns.RESPONSE)
        self._describe(packet, entry.instance, entry.port, entry.address, entry.strings, ttl)
        return packet.done()

    def _answer(
        self, question: Question, instance: str, port: int, address: bytes, strings: tuple[bytes, ...]
    ) -> bytes:
        packet = self._pointer(question, instance)
        self._describe(packet, instance, port, address, strings, TTL)
        return packet.done()

    def _pointer(self, question: Question, target: str) -> _dns.Packet:
        """The beginning of every answer: the question again, which Go peers insist on, and the PTR record."""
        packet = _dns.Packet(0, _dns.RESPONSE | _dns.AUTHORITATIVE, compress=True)
        packet.question(question)
        packet.record(question.name, _dns.PTR, TTL, target=target)
        return packet

    def _describe(
        self, packet: _dns.Packet, instance: str, port: int, address: bytes, strings: tuple[bytes, ...], ttl: int
    ) -> None:
        """SRV before the address, since Go peers attach an address through an SRV record that they know."""
        packet.record(instance, _dns.SRV, ttl, struct.pack("!HHH", 10, 1, port), target=self._host)
        packet.record(self._host, _dns.A if len(address) == 4 else _dns.AAAA, ttl, address)
        packet.record(instance, _dns.TXT, ttl, b"".join(bytes([len(string)]) + string for string in strings))

    def read_query(self, data: bytes) -> tuple[int, list[Question]] | None:
        """Id and questions of a query that may concern this domain; None for everything else."""
        return _dns.read_query(data) if self._mark in data else None

    def read_answer(self, data: bytes) -> Answer | None:
        """A response that may concern this domain; None for everything else."""
        return self._read(data, asked=True)

    def read_announcement(self, data: bytes) -> Answer | None:
        """What a peer says unasked; None for everything else.

        Responses with a question are none: those go to who asked, and Go responders answer them, as if they asked.
        """
        return self._read(data, asked=False)

    def _read(self, data: bytes, *, asked: bool) -> Answer | None:
        # A name of the domain stands whole at least once, so most of other people's traffic ends here.
        records = _dns.read_response(data, asked=asked) if self._mark in data else None
        if records is None:
            return None
        suffix = f".{self._listing}"
        listed = (name for name in records.pointers.get(self._listing, ()) if name.endswith(suffix))
        found = ((instance, self._record(instance, records)) for instance in records.services)
        return Answer(
            {instance: record for instance, record in found if record},
            tuple(records.gone),
            tuple(name.removesuffix(suffix) for name in listed),
        )

    def _record(self, instance: str, records: _dns.Records) -> ServiceRecord | None:
        """The node that an SRV record and its companions describe; None when something is missing or wrong."""
        port, target = records.services[instance]
        address = records.ipv4.get(target) or records.ipv6.get(target)
        strings = records.texts.get(instance)
        if not (port and address and strings):
            return None
        try:
            payload = _payload.read(strings)
        except ValueError:
            return None
        id = instance.removesuffix(f".{payload.service}.{self.domain}")
        if not (payload.service and id and id != instance):
            return None
        node = Node(id, join_address(address, port), payload.metadata)
        return ServiceRecord(payload.service, payload.version, payload.service_metadata, payload.endpoints, (node,))


def _check_instance(instance: str, node: Node) -> None:
    try:
        _dns.name(instance, f"node {node.id!r}")
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}. A node's id is the service's name, a dash and 36 characters, so the last part of a service's "
            f"name has {_dns.MAX_LABEL - 37} bytes at most here: choose a shorter name or another registry"
        ) from error


def _address(node: Node) -> tuple[bytes, int]:
    """The node's IP address, 4 or 16 bytes, and its port."""
    try:
        host, ports = split_address(node.address)
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise ConfigurationError(
            f"node {node.id!r}: mDNS carries addresses of the form IP:port only, not {node.address!r}: listen on or "
            "advertise one such as 127.0.0.1:8080, or choose another registry"
        ) from error
    if address.is_unspecified or getattr(address, "scope_id", None):
        raise ConfigurationError(f"node {node.id!r}: {node.address!r} means nothing to peers: advertise one address")
    if len(ports) != 1 or not ports[0]:
        raise ConfigurationError(f"node {node.id!r}: {node.address!r} needs one port between 1 and 65535")
    return address.packed, ports[0]


def _host_name(host: str) -> str:
    try:
        _dns.name(host)
    except ConfigurationError:
        return "pymicro"
    return host
