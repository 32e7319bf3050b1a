"""Multicast DNS: recorded packets are understood, and pymicro's are the same, byte for byte but for zlib's own."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from recorded import Recording

from pymicro.registry import Endpoint, Node, ServiceRecord, Value
from pymicro_registry_mdns import MdnsOptions, _dns
from pymicro_registry_mdns._interfaces import GROUP_4, PORT, Interface, asking_socket, speaking_socket
from pymicro_registry_mdns._packets import Answer, Entry, Wire
from pymicro_registry_mdns._registry import MdnsRegistry

MDNS = Recording("mdns.json")
NODE = "greeter-id1.greeter.micro"

#: Seconds after which something that should have come is missing.
PATIENCE = 10.0


@pytest.fixture
def wire() -> Wire:
    return Wire("micro", "vm")


def payload_of(name: str) -> Any:
    """The JSON that is stated to be in the TXT record of a packet, which is its last one."""
    return json.loads(MDNS[name].meaning.get("answers", MDNS[name].meaning.get("authority"))[-1][4]["inflated"])


def record_of(name: str) -> ServiceRecord:
    """The node that a packet is stated to tell of."""
    payload = payload_of(name)
    endpoints = tuple(
        Endpoint(each["name"], value_of(each["request"]), value_of(each["response"]), each["metadata"])
        for each in payload["Endpoints"]
    )
    node = Node("greeter-id1", "127.0.0.1:18460", payload["Metadata"])
    return ServiceRecord(payload["Service"], payload["Version"], {}, endpoints, (node,))


def value_of(value: dict[str, Any]) -> Value:
    return Value(value["name"], value["type"], tuple(value_of(each) for each in value["values"] or ()))


def entry_of(name: str) -> Entry:
    """The node with the TXT record that Go wrote."""
    records = _dns.read_response(MDNS[name].data, asked="questions" in MDNS[name].meaning)
    assert records is not None
    [strings] = records.texts.values()
    assert [len(each) for each in strings] == MDNS[name].meaning["answers"][-1][4]["strings"]
    return Entry("greeter", NODE, socket.inet_aton("127.0.0.1"), 18460, tuple(strings))


# Questions


def question_of(name: str) -> _dns.Question:
    [[owner, kind, klass]] = MDNS[name].meaning["questions"]
    assert kind == "PTR"
    return _dns.Question(owner.removesuffix("."), _dns.PTR, klass)


@MDNS.check(["query_greeter", "query_list", "probe"])
def test_questions_are_understood(name: str, wire: Wire) -> None:
    assert wire.read_query(MDNS[name].data) == (MDNS[name].meaning["id"], [question_of(name)])
    assert wire.read_answer(MDNS[name].data) is None
    assert wire.read_announcement(MDNS[name].data) is None


@MDNS.check(["query_greeter", "query_list"])
def test_questions_are_written_the_same(name: str, wire: Wire) -> None:
    written = wire.query("greeter" if name == "query_greeter" else None)
    assert len(written) == len(MDNS[name].data)
    assert written[2:] == MDNS[name].data[2:], "but for the id"


@MDNS.check(["probe"])
def test_nobody_answers_a_probe(name: str, wire: Wire) -> None:
    """It asks whether a name is taken, by those who take names; pymicro does not probe either: its names are random."""
    assert list(wire.answers(question_of(name), {NODE: entry_of("announce")})) == []


# Answers and announcements


@MDNS.check(["announce", "response_greeter"])
def test_nodes_are_understood(name: str, wire: Wire) -> None:
    read = wire.read_announcement if name == "announce" else wire.read_answer
    assert read(MDNS[name].data) == Answer({NODE: record_of(name)})
    assert wire.read_query(MDNS[name].data) is None


@MDNS.check(["goodbye"])
def test_goodbyes_are_understood(name: str, wire: Wire) -> None:
    assert wire.read_announcement(MDNS[name].data) == Answer(gone=(NODE,))


@MDNS.check(["response_list"])
def test_the_listing_is_understood(name: str, wire: Wire) -> None:
    assert wire.read_answer(MDNS[name].data) == Answer(services=("greeter",))


@MDNS.check(["response_dnssd"])
def test_the_enumeration_is_not_needed(name: str, wire: Wire) -> None:
    """pymicro answers it, for tools that look around, and asks for the listing itself."""
    assert wire.read_answer(MDNS[name].data) == Answer()


@MDNS.check(["announce", "goodbye"])
def test_announcements_are_written_the_same(name: str, wire: Wire) -> None:
    assert wire.announcement(entry_of(name), ttl=120 if name == "announce" else 0) == MDNS[name].data


@MDNS.check(["response_greeter", "response_list", "response_dnssd"])
def test_answers_are_written_the_same(name: str, wire: Wire) -> None:
    entry = entry_of("response_greeter")
    assert list(wire.answers(question_of(name), {NODE: entry})) == [MDNS[name].data]


@pytest.mark.parametrize("name", ["announce", "response_greeter", "goodbye"])
def test_the_text_of_a_node_is_the_same(name: str, wire: Wire) -> None:
    [entry] = wire.entries(record_of(name))
    text = b"".join(entry.strings)
    assert json.loads(zlib.decompress(bytes.fromhex(text.decode()))) == payload_of(name)
    assert all(len(part) == 255 for part in entry.strings[:-1])
    assert text == text.lower()
    assert entry == Entry("greeter", NODE, socket.inet_aton("127.0.0.1"), 18460, entry.strings)


# On the network

LOOPBACK = Interface("lo", 1, "127.0.0.1")
DOMAIN = f"d{random.SystemRandom().randrange(10_000):04}"


def packet(name: str) -> bytes:
    """A recorded packet, in a domain whose name has the same length and that nobody else uses."""
    return MDNS[name].data.replace(b"\x05micro", b"\x05" + DOMAIN.encode())


@pytest.fixture
async def registry() -> AsyncIterator[MdnsRegistry]:
    options = MdnsOptions(domain=DOMAIN, interfaces=("127.0.0.1",), refresh=3600.0)
    async with MdnsRegistry(options) as registry:
        yield registry


async def receive(sock: socket.socket) -> tuple[bytes, Any]:
    """The next packet of this domain, and where it came from."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        while True:
            data, sender = await loop.sock_recvfrom(sock, 65536)
            if DOMAIN.encode() in data:
                return data, sender


@pytest.mark.parametrize(
    ("query", "response"), [("query_greeter", "response_greeter"), ("query_list", "response_list")]
)
async def test_the_packet_of_a_go_client_is_answered_as_by_go(
    query: str, response: str, registry: MdnsRegistry
) -> None:
    await registry.register(record_of("announce"), ttl=60.0)
    with asking_socket(LOOPBACK) as asker:
        asker.sendto(packet(query), (GROUP_4, PORT))
        answer, sender = await receive(asker)
    wire = Wire(DOMAIN, "vm")
    assert sender[1] == PORT
    assert answer[:12] == packet(response)[:12], "id, flags and the number of records"
    assert wire.read_answer(answer) == wire.read_answer(packet(response)) != Answer()


async def respond(question: str, response: str) -> None:
    """Answer one question as a Go responder does: twice to somebody on the same host."""
    with speaking_socket(LOOPBACK) as responder:
        data, asker = await receive(responder)
        while data[2:] != packet(question)[2:]:
            data, asker = await receive(responder)
        for _ in range(2):
            responder.sendto(packet(response), asker)


async def test_the_packet_of_a_go_responder_is_one_node(registry: MdnsRegistry) -> None:
    found, _ = await asyncio.gather(registry.get_service("greeter"), respond("query_greeter", "response_greeter"))
    assert found == (record_of("response_greeter"),)


async def test_the_listing_of_a_go_responder_is_one_service(registry: MdnsRegistry) -> None:
    found, _ = await asyncio.gather(registry.list_services(), respond("query_list", "response_list"))
    assert found == ["greeter"]


async def test_a_go_node_is_watched_as_it_comes_and_goes(registry: MdnsRegistry) -> None:
    with speaking_socket(LOOPBACK) as node:
        async with asyncio.timeout(PATIENCE), registry.watch("greeter") as snapshots:
            assert (await anext(snapshots)).services == ()
            node.sendto(packet("probe"), (GROUP_4, PORT))
            node.sendto(packet("announce"), (GROUP_4, PORT))
            assert (await anext(snapshots)).services == (record_of("announce"),)
            node.sendto(packet("goodbye"), (GROUP_4, PORT))
            assert (await anext(snapshots)).services == ()


def test_every_vector_has_a_check() -> None:
    assert MDNS.unchecked == set()
