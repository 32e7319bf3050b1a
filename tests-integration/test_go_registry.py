"""Multicast DNS between Go and Python: they find each other, see each other come and go, and start no storm."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import uuid
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import dns.flags
import dns.message
import pytest

from go_mesh import PORT, Capture, Datagram
from go_peers import GoProgram, StartGo
from go_registries import found_by_go, until
from processes import Program
from pymicro_registry_mdns._registry import MdnsRegistry

GROUP = "224.0.0.251"

#: Datagrams that one look-up may cost, whoever asks and answers.
MANY = 50


@pytest.fixture
def environment(mesh_environment: dict[str, str]) -> dict[str, str]:
    """Everything as Go Micro has it."""
    return mesh_environment


@pytest.fixture
def start_node(start: Any) -> Callable[..., Any]:
    """Starts a Python node and waits until it serves."""

    async def start_node(*flags: str, **variables: str) -> Program:
        program: Program = await start("node.py", "--drain_delay=0", *flags, **variables)
        await program.says("service started")
        return program

    return start_node


@pytest.fixture
def start_server(start_go: StartGo, name: str) -> Callable[..., Any]:
    """Starts a Go node of the same service and waits until it serves."""

    async def start_server(*flags: str) -> GoProgram:
        return await start_go("server", "-registry", "mdns", "-name", name, *flags)

    return start_server


# looking up


@pytest.mark.checklist(26)
async def test_go_finds_and_lists_a_python_node(start_node: Any, start_go: StartGo, name: str) -> None:
    program = await start_node("--server_id=a", "--server_version=1.2.3", "--server_metadata=zone=b")
    go = await start_go("registry")
    (service,) = await found_by_go(go, name)
    assert (service["name"], service["version"]) == (name, "1.2.3")
    assert {"Node.Work", "Node.Look"} <= {endpoint["name"] for endpoint in service["endpoints"]}
    (node,) = service["nodes"]
    assert (node["id"], node["address"]) == (f"{name}-a", await program.address())
    assert node["metadata"].items() >= {"zone": "b", "protocol": "mucp", "transport": "http"}.items()
    async with asyncio.timeout(10):
        while name not in {listed["name"] for listed in (await go.ask("list"))["services"]}:
            pass


@pytest.mark.checklist(26)
async def test_go_finds_a_node_that_says_much_of_itself(start_node: Any, start_go: StartGo, name: str) -> None:
    facts = {f"fact{number}": secrets.token_hex(100) for number in range(30)}
    await start_node(*(f"--server_metadata={key}={value}" for key, value in facts.items()))
    assert len(texts_of(name)) > 4
    assert {len(text) for text in texts_of(name)[:-1]} == {255}
    (service,) = await found_by_go(await start_go("registry"), name)
    assert service["nodes"][0]["metadata"].items() >= facts.items()


def texts_of(name: str) -> list[bytes]:
    """The strings of a node's TXT record, as a DNS library reads them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        asker.sendto(dns.message.make_query(f"{name}.micro", "PTR", flags=0).to_wire(), (GROUP, PORT))
        answer = dns.message.from_wire(asker.recv(65536))
    return [text for record in answer.answer if record.rdtype.name == "TXT" for text in record[0].strings]


@pytest.mark.checklist(27)
async def test_python_finds_and_lists_a_go_node(start_server: Any, mesh_registry: MdnsRegistry, name: str) -> None:
    server = await start_server("-version", "1.2.3")
    (service,) = await mesh_registry.get_service(name)
    assert (service.name, service.version) == (name, "1.2.3")
    assert {"Greeter.Hello", "Streams.Echo"} <= {endpoint.name for endpoint in service.endpoints}
    (node,) = service.nodes
    assert (node.id, node.address) == (server.ready["id"], server.ready["address"])
    assert ip_address(node.address.rpartition(":")[0]).version == 4
    assert node.metadata["protocol"] == "mucp"
    assert name in await mesh_registry.list_services()


@pytest.mark.checklist(27)
async def test_a_go_node_that_answers_twice_is_one_node(
    start_server: Any, mesh_registry: MdnsRegistry, name: str, capture: Capture
) -> None:
    server = await start_server()
    (service,) = await mesh_registry.get_service(name)
    answers = [each for each in capture.take() if each.is_response and each.asks and names(each, server.ready["id"])]
    assert len(answers) > len({each.target for each in answers}), "Go sends a copy to an asker on its own host"
    assert len(service.nodes) == 1


@pytest.mark.checklist(34)
async def test_two_versions_are_two_entries(
    start_node: Any, start_server: Any, start_go: StartGo, mesh_registry: MdnsRegistry, name: str
) -> None:
    await start_node("--server_id=a", "--server_version=1")
    await start_node("--server_id=b", "--server_version=2")
    await start_server("-id", "c", "-version", "2")
    await start_server("-id", "d", "-version", "3")
    expected = {"1": {f"{name}-a"}, "2": {f"{name}-b", f"{name}-c"}, "3": {f"{name}-d"}}
    async with mesh_registry.watch(name) as snapshots:  # a look-up may be over before a busy machine has answered
        services = await until(snapshots, nodes=4)
    assert {service.version: {node.id for node in service.nodes} for service in services} == expected
    by_go = await found_by_go(await start_go("registry"), name, nodes=4)
    assert {service["version"]: {node["id"] for node in service["nodes"]} for service in by_go} == expected


# watching


@pytest.mark.checklist(28)
async def test_a_go_watch_sees_python_nodes_come_and_go(start_node: Any, start_go: StartGo, name: str) -> None:
    watcher = await start_go("watcher", "-name", name)
    program = await start_node("--server_id=a", "--server_version=1.2.3")
    created = await watcher.event("create", id=f"{name}-a")
    assert (created["address"], created["version"]) == (await program.address(), "1.2.3")
    assert created["metadata"]["protocol"] == "mucp"
    program.signal(signal.SIGTERM)
    await watcher.event("delete", id=f"{name}-a")


@pytest.mark.checklist(28)
async def test_a_python_watch_sees_go_nodes_come_and_go(
    start_server: Any, mesh_registry: MdnsRegistry, name: str
) -> None:
    async with mesh_registry.watch(name) as snapshots:
        assert (await anext(snapshots)).services == ()
        server = await start_server()
        (service,) = await until(snapshots, nodes=1)
        assert [node.id for node in service.nodes] == [server.ready["id"]]
        server.signal(signal.SIGTERM)
        assert await until(snapshots, nodes=0) == ()


# what is sent


def names(datagram: Datagram, text: str) -> bool:
    """Whether a name or label of the message is, or begins with, `text`."""
    return text.encode() in datagram.data


@pytest.mark.checklist(29)
async def test_no_question_leaves_a_python_program_from_port_5353(
    start_node: Any, start_server: Any, start_go: StartGo, mesh_registry: MdnsRegistry, name: str, capture: Capture
) -> None:
    server = await start_server()
    async with mesh_registry.watch(name) as snapshots, mesh_registry.watch() as everything:
        await until(snapshots, nodes=1)
        program = await start_node()
        await until(snapshots, nodes=2)
        await anext(everything)
        await mesh_registry.get_service(name)
        await mesh_registry.list_services()
        await found_by_go(await start_go("registry"), name, nodes=2)
        program.signal(signal.SIGTERM)
        await until(snapshots, nodes=1)
    questions = [each for each in capture.take() if not each.is_response]
    assert any(each.source != PORT for each in questions)
    probes = [each for each in questions if each.source == PORT]
    # Go's, for the names it is about to claim. Go nodes take an answer to that port for the next question.
    assert all(each.message.authority and names(each, server.ready["id"]) for each in probes), probes
    assert not [each for each in capture.datagrams if each.is_response and each.asks and each.target == PORT]


@pytest.mark.checklist(29)
async def test_an_answer_is_not_taken_for_a_question(
    start_node: Any, start_server: Any, name: str, capture: Capture
) -> None:
    await start_node("--server_id=python")
    await start_server("-id", "go")
    question, another = (dns.message.make_query(f"{name}.micro", "PTR", flags=0) for _ in range(2))
    answer = dns.message.make_response(another)
    answer.flags = dns.flags.QR | dns.flags.AA
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        port = send(asker, answer)
        assert b"-go" in asker.recv(65536), "Go takes it for one"
        send(asker, question)
        while b"-python" not in asker.recv(65536):
            pass
    answers = [each for each in capture.take() if each.target == port]
    assert len([each for each in answers if b"-python" in each.data]) == 1


def send(asker: socket.socket, message: dns.message.Message) -> int:
    """Send a message to everybody; the port it comes from."""
    asker.sendto(message.to_wire(), (GROUP, PORT))
    port: int = asker.getsockname()[1]
    return port


@pytest.mark.checklist(29)
async def test_a_lookup_costs_few_datagrams(
    start_node: Any, start_server: Any, start_go: StartGo, mesh_registry: MdnsRegistry, name: str, capture: Capture
) -> None:
    for _ in range(2):
        await start_node()
        await start_server()
    go = await start_go("registry")
    await found_by_go(go, name, nodes=4)
    lookups = 10
    before = len(capture.take())
    for _ in range(lookups):
        (service,) = await mesh_registry.get_service(name)
        assert service.nodes  # those that answered in time
    by_python = capture.take()[before:]
    for _ in range(lookups):
        await go.ask("get", name=name)
    by_go = capture.take()[before + len(by_python) :]
    for sent in (by_python, by_go):
        assert lookups * 2 <= len([each for each in sent if names(each, name)]), "a question, and some of its answers"
        assert len(sent) < lookups * MANY


# names


@pytest.mark.checklist(30)
async def test_the_longest_name_is_found(start_node: Any, start_go: StartGo) -> None:
    longest = uuid.uuid4().hex[:26]
    await start_node(NODE_NAME=longest)
    (service,) = await found_by_go(await start_go("registry"), longest)
    assert service["name"] == longest


@pytest.mark.checklist(30)
async def test_a_longer_name_is_refused_where_go_hides_the_service(
    start: Any, start_go: StartGo, mesh_registry: MdnsRegistry
) -> None:
    name = uuid.uuid4().hex[:27]
    program = await start("node.py", NODE_NAME=name)
    assert await program.ended() == 2
    assert "26 bytes at most" in "\n".join(program.log)
    node = {"id": f"{name}-{uuid.uuid4()}", "address": "127.0.0.1:9000"}
    go = await start_go("registry")
    registered = await go.ask("register", service={"name": name, "version": "1", "nodes": [node]})
    assert registered["error"] is None
    assert (await go.ask("get", name=name))["services"] == []
    assert await mesh_registry.get_service(name) == ()
