"""Packets: what is written is read, and nothing hostile gets through.

Go Micro's own packets are in `tests-integration/vectors`.
"""

from __future__ import annotations

import json
import os
import random
import struct
import zlib

import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import msgspec
import pytest

from pymicro.errors import ConfigurationError
from pymicro.registry import Endpoint, Node, ServiceRecord, Value
from pymicro_registry_mdns import _dns
from pymicro_registry_mdns._packets import Answer, Entry, Wire

NODE = "greeter-id1.greeter.micro"
PTR = 12

#: How many hostile packets, and which. `PYMICRO_FUZZ=1000000` is a long test.
INPUTS = int(os.environ.get("PYMICRO_FUZZ", "1000"))
SEED = int(os.environ.get("PYMICRO_FUZZ_SEED", "1"))


@pytest.fixture
def wire() -> Wire:
    return Wire("micro", "vm")


def greeter(wire: Wire) -> Entry:
    """A node with endpoints, whose TXT record takes several strings."""
    request = Value("Req", "Req", (Value("name", "string"), Value("n", "int")))
    endpoints = tuple(Endpoint(f"Greeter.M{number}", request, metadata={"n": f"{number:x}"}) for number in range(50))
    node = Node("greeter-id1", "127.0.0.1:18460", {"protocol": "mucp", "zone": "eu-1"})
    (entry,) = wire.entries(ServiceRecord("greeter", "1.2.3", {}, endpoints, (node,)))
    assert len(entry.strings) > 1
    return entry


def inflate(parts: tuple[bytes, ...]) -> object:
    return json.loads(zlib.decompress(bytes.fromhex(b"".join(parts).decode())))


def packets(wire: Wire) -> dict[str, bytes]:
    """One of each kind."""
    entry = greeter(wire)
    found = {
        "query": wire.query("greeter"),
        "query for all": wire.query(None),
        "announcement": wire.announcement(entry),
        "goodbye": wire.announcement(entry, ttl=0),
    }
    for name in ("greeter.micro", "_services.micro", "_services._dns-sd._udp.micro"):
        (found[name],) = wire.answers(_dns.Question(name, PTR), {NODE: entry})
    return found


def deflated(text: str) -> tuple[bytes, ...]:
    data = zlib.compress(text.encode()).hex().encode()
    return tuple(data[at : at + 255] for at in range(0, len(data), 255))


def answered(wire: Wire, parts: tuple[bytes, ...], instance: str = NODE) -> Answer | None:
    """What is understood of an answer with this TXT record."""
    entry = Entry("greeter", instance, bytes([10, 0, 0, 5]), 8080, parts)
    (packet,) = wire.answers(_dns.Question("greeter.micro", PTR), {entry.instance: entry})
    return wire.read_answer(packet)


# Ours


def test_a_record_survives(wire: Wire) -> None:
    request = Value("Req", "Req", (Value("inner", "Inner", (Value("name", "string"),)),))
    endpoints = (Endpoint("Größe.Hello", request, None, {"stream": "true"}), Endpoint("A.B"))
    node = Node("svc.v1-1", "[2001:db8::1]:8080", {"zone": "日本", "empty": ""})
    service = ServiceRecord("svc.v1", "2", {"owner": "me"}, endpoints, (node,))
    (entry,) = wire.entries(service)
    announcement = wire.read_announcement(wire.announcement(entry))
    assert announcement == Answer({"svc.v1-1.svc.v1.micro": service})


def test_packets_are_sound_dns(wire: Wire) -> None:
    (entry,) = wire.entries(ServiceRecord("greeter", nodes=(Node("greeter-1", "10.0.0.5:8080"),)))
    (packet,) = wire.answers(_dns.Question("greeter.micro", PTR), {entry.instance: entry})
    message = dns.message.from_wire(packet)
    assert [dns.rdatatype.to_text(rrset.rdtype) for rrset in message.answer] == ["PTR", "SRV", "A", "TXT"]
    assert {rrset.ttl for rrset in message.answer} == {120}
    assert message.question[0].name.to_text() == "greeter.micro."


def test_the_unicast_bit_and_any_are_accepted(wire: Wire) -> None:
    entry = Entry("greeter", NODE, bytes([10, 0, 0, 5]), 8080, (b"00",))
    for question, count in (
        (_dns.Question("greeter.micro", PTR, 0x8001), 1),
        (_dns.Question("greeter.micro", 255, 255), 1),
        (_dns.Question("greeter.micro", 1), 0),
        (_dns.Question("greeter.micro", PTR, 3), 0),
        (_dns.Question("Greeter.micro", PTR), 0),
        (_dns.Question("other.micro", PTR), 0),
    ):
        assert len(list(wire.answers(question, {NODE: entry}))) == count


def test_answers_may_be_additional_in_any_order_and_ipv4_is_preferred(wire: Wire) -> None:
    packet = _dns.Packet(4711, 0x8400)
    packet.question(_dns.Question("greeter.micro", PTR))
    packet.record(NODE, 16, 120, b"".join(bytes([len(part)]) + part for part in greeter(wire).strings))
    packet.record("host", 28, 120, bytes(15) + b"\1")
    packet.record("host", 1, 120, bytes([10, 0, 0, 5]))
    packet.record(NODE, 33, 120, struct.pack("!HHH", 0, 0, 80), target="host")
    packet.record("greeter.micro", 12, 120, target=NODE)
    packet.record("greeter.micro", 47, 120, b"something else")
    data = bytearray(packet.done())
    data[6:12] = struct.pack("!HHH", 0, 0, 6)
    answer = wire.read_answer(bytes(data))
    assert answer is not None
    assert answer.nodes[NODE].nodes[0].address == "10.0.0.5:80"


def test_responses_to_others_are_no_announcements(wire: Wire) -> None:
    assert wire.read_announcement(packets(wire)["greeter.micro"]) is None


def test_what_concerns_another_domain_is_nothing(wire: Wire) -> None:
    elsewhere = Wire("local", "vm")
    assert elsewhere.read_query(packets(wire)["query"]) is None
    assert elsewhere.read_answer(packets(wire)["greeter.micro"]) is None


# What does not fit


@pytest.mark.parametrize("address", ["localhost:8080", "topic.of.a.queue", "", ":8080", "::1:80", "10.0.0.5"])
def test_other_addresses_are_refused(wire: Wire, address: str) -> None:
    with pytest.raises(ConfigurationError, match="IP:port only"):
        wire.entries(ServiceRecord("greeter", nodes=(Node("greeter-1", address),)))


@pytest.mark.parametrize("address", ["10.0.0.5:0", "10.0.0.5:80-90"])
def test_a_port_is_needed(wire: Wire, address: str) -> None:
    with pytest.raises(ConfigurationError, match="one port"):
        wire.entries(ServiceRecord("greeter", nodes=(Node("greeter-1", address),)))


@pytest.mark.parametrize("address", ["0.0.0.0:80", "[::]:80", "[fe80::1%eth0]:80"])
def test_addresses_without_meaning_elsewhere_are_refused(wire: Wire, address: str) -> None:
    with pytest.raises(ConfigurationError, match="means nothing to peers"):
        wire.entries(ServiceRecord("greeter", nodes=(Node("greeter-1", address),)))


def test_long_labels_are_refused(wire: Wire) -> None:
    fits, beyond = "x" * 26, "x" * 27
    wire.entries(ServiceRecord(fits, nodes=(Node(f"{fits}-{'0' * 36}", "10.0.0.5:80"),)))
    with pytest.raises(ConfigurationError, match=r"label 'x+-0+' of 64 bytes; DNS allows 63.* 26 bytes at most"):
        wire.entries(ServiceRecord(beyond, nodes=(Node(f"{beyond}-{'0' * 36}", "10.0.0.5:80"),)))


@pytest.mark.parametrize("name", ["", "a..b", ".a", "x" * 64, ".".join("x" * 60 for _ in range(5)), "\ud800"])
def test_names_that_cannot_be_are_refused(wire: Wire, name: str) -> None:
    assert not wire.can_exist(name)
    with pytest.raises(ConfigurationError):
        wire.entries(ServiceRecord(name, nodes=(Node("node", "10.0.0.5:80"),)))


def test_reserved_names_and_empty_services_are_refused(wire: Wire) -> None:
    with pytest.raises(ConfigurationError, match="_services"):
        wire.entries(ServiceRecord("_services", nodes=(Node("node", "10.0.0.5:80"),)))
    with pytest.raises(ConfigurationError, match="without a node"):
        wire.entries(ServiceRecord("greeter"))


def test_records_beyond_a_datagram_are_refused(wire: Wire) -> None:
    noise = random.Random(1).randbytes(40_000).hex()
    with pytest.raises(ConfigurationError, match="fewer endpoints"):
        wire.entries(ServiceRecord("greeter", nodes=(Node("greeter-1", "10.0.0.5:80", {"noise": noise}),)))


def test_the_domain_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="the domain"):
        Wire("a..b", "vm")
    assert Wire("a.b.", "vm").domain == "a.b"
    assert (
        Wire("micro", "not..a..name").read_announcement(
            Wire("micro", "not..a..name").announcement(Entry("greeter", NODE, bytes([10, 0, 0, 5]), 1, (b"00",)))
        )
        == Answer()
    )


# Hostile packets


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"Service":"greeter","Metadata":{"a":1}}',
        '{"Service":"","Version":"1"}',
        '{"Service":"other","Version":"1"}',
        '{"Service":"greeter","Endpoints":[' * 5000,
        '{"Service":"greeter","Version":"1","Metadata":{"a":"' + "x" * 1_100_000 + '"}}',
    ],
)
def test_payloads_that_are_none_are_passed_over(wire: Wire, text: str) -> None:
    assert answered(wire, deflated(text)) == Answer()


@pytest.mark.parametrize("parts", [(), (b"",), (b"zz",), (b"7",), (b"\xff",), (b"789c",), deflated("{}")[0:0]])
def test_texts_that_are_no_payload_are_passed_over(wire: Wire, parts: tuple[bytes, ...]) -> None:
    assert answered(wire, parts) == Answer()


def test_null_and_unknown_fields_are_accepted(wire: Wire) -> None:
    text = '{"Service":"greeter","Metadata":null,"Endpoints":null,"Version":"","Other":[1]}'
    answer = answered(wire, deflated(text))
    assert answer is not None
    assert answer.nodes[NODE] == ServiceRecord("greeter", "", nodes=(Node("greeter-id1", "10.0.0.5:8080"),))


def test_nested_types_are_read_to_a_bound(wire: Wire) -> None:
    nested = '{"name":"v","type":"T","values":[' * 100 + "]}" * 100
    text = '{"Service":"greeter","Endpoints":[{"name":"A.B","request":' + nested + "}]}"
    answer = answered(wire, deflated(text))
    assert answer is not None
    value = answer.nodes[NODE].endpoints[0].request
    depth = 0
    while value is not None:
        depth += 1
        value = value.values[0] if value.values else None
    assert depth == 9


def test_names_that_point_in_circles_are_passed_over(wire: Wire) -> None:
    header = struct.pack("!HHHHHH", 0, 0x8400, 0, 1, 0, 0)
    assert wire.read_answer(header + b"\xc0\x0c" + b"\x05micro\x00" + bytes(10)) is None


@pytest.mark.parametrize("seed", range(10))
def test_names_are_read_as_an_independent_reader_reads_them(seed: int) -> None:
    rng = random.Random(seed)
    accepted = 0
    for _ in range(200):
        data = bytes(rng.choices((0, 1, 2, 3, 5, 63, 64, 97, 98, 128, 0xC0), k=rng.randrange(1, 600)))
        record = struct.pack("!HHIH", PTR, 1, 120, 0)
        packet = struct.pack("!HHHHHH", 0, 0, 1, 0, 0, 0) + data + record
        try:
            name, _ = dns.name.from_wire(packet, 12)
            expected = b".".join(name.labels[:-1]).decode()
        except (dns.exception.DNSException, UnicodeDecodeError):
            continue
        query = _dns.read_query(packet)
        assert query is not None
        assert query[1][0].name == expected
        accepted += 1
    assert accepted


@pytest.mark.parametrize("compress", [True, False])
def test_names_are_written_as_an_independent_reader_expects_them(compress: bool) -> None:
    names = ["greeter.micro", "a.greeter.micro", "micro", "b.a.greeter.micro", "größe.micro"]
    packet = _dns.Packet(7, 0x8400, compress=compress)
    for owner, target in zip(names, reversed(names), strict=True):
        packet.record(owner, PTR, 120, target=target)
    message = dns.message.from_wire(packet.done())
    read = [(rrset.name, rrset[0].target) for rrset in message.answer]
    text = [tuple(b".".join(name.labels[:-1]).decode() for name in pair) for pair in read]
    assert text == list(zip(names, reversed(names), strict=True))


@pytest.mark.parametrize("labels", [4, 5])
def test_a_name_takes_255_bytes_at_most(labels: int) -> None:
    sent = b"".join(bytes([len(label)]) + label for label in [b"x" * 62] * 4 + [b"y"] * (labels - 4)) + b"\0"
    text = ".".join(["x" * 62] * 4 + ["y"] * (labels - 4))
    query = struct.pack("!HHHHHH", 0, 0, 1, 0, 0, 0) + sent + struct.pack("!HH", PTR, 1)
    assert _dns.name(text) == sent
    assert _dns.read_query(query) == (0, [_dns.Question(text, PTR)])
    longer = query[:12] + b"\1z\1z" + query[12:]
    assert _dns.read_query(longer) is None
    with pytest.raises(ConfigurationError, match="DNS allows 255"):
        _dns.name(f"z.z.{text}")


@pytest.mark.parametrize("text", ["", "a..b", ".a", "a."])
def test_no_label_is_empty(text: str) -> None:
    with pytest.raises(ConfigurationError, match="a label is empty"):
        _dns.name(text, "the domain")


def test_packets_with_too_many_records_are_passed_over(wire: Wire) -> None:
    packet = _dns.Packet(0, 0x8400)
    for _ in range(65):
        packet.record("_services.micro", 12, 120, target="greeter._services.micro")
    assert wire.read_answer(packet.done()) is None
    query = _dns.Packet(0, 0)
    for _ in range(17):
        query.question(_dns.Question("greeter.micro", PTR))
    assert wire.read_query(query.done()) is None


@pytest.mark.parametrize("seed", range(10))
def test_no_packet_breaks_the_parser(wire: Wire, seed: int) -> None:
    rng = random.Random(SEED + seed)
    entry = Entry("greeter", NODE, bytes([10, 0, 0, 5]), 8080, (b"00",))
    sound = list(packets(wire).values())
    for _ in range(INPUTS // 10):
        packet = bytearray(rng.choice(sound))
        for _ in range(rng.randrange(1, 8)):
            packet[rng.randrange(len(packet))] = rng.choice((0, 0xC0, 0xFF, 0x3F, rng.randrange(256)))
        data = bytes(packet[: rng.choice((len(packet), rng.randrange(len(packet))))]) + rng.randbytes(rng.randrange(4))
        if rng.random() < 0.1:
            data = rng.randbytes(rng.randrange(200)) + b"\x05micro\x00"
        wire.read_answer(data)
        wire.read_announcement(data)
        if query := wire.read_query(data):
            for question in query[1]:
                list(wire.answers(question, {NODE: entry}))


def test_no_payload_breaks_the_parser(wire: Wire) -> None:
    rng = random.Random(SEED)
    record = json.dumps(inflate(greeter(wire).strings))
    read = 0
    for _ in range(INPUTS):
        text = list(record)
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(4)] = rng.choice(("null", "[", "{", '"', "\\u0000", "9" * 400, "", ":", "é"))
        parts = deflated("".join(text))
        if rng.random() < 0.2:
            parts = tuple(part[: rng.randrange(256)] for part in parts)
        answer = answered(wire, parts)
        assert answer is not None
        read += bool(answer.nodes)
    assert INPUTS // 20 < read < INPUTS


def test_answers_tell_of_what_was_asked() -> None:
    greeter, other = ServiceRecord("greeter", nodes=(Node("a", "10.0.0.5:80"),)), ServiceRecord("other")
    answer = Answer({"a": greeter, "b": other}, services=("listed",))
    assert answer.about("greeter") == {"a": greeter}
    assert answer.about(None) == {name: ServiceRecord(name) for name in ("greeter", "other", "listed")}
    assert msgspec.structs.replace(answer, nodes={}).about("greeter") == {}
