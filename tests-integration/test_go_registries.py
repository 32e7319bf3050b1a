"""Registries on servers, shared by Go and Python: items 31 to 34 of the checklist."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from aetcd import rpc

from go_peers import VERSIONS, GoProgram, StartGo, build
from go_registries import asked_by_go, found_by_go, registry_of, until
from processes import PATIENCE, Program
from pymicro import Service
from pymicro.registry import Registry
from pymicro_testing.servers import NativeServer

#: Item of the checklist, by registry. In v4 the one for NATS cannot be had with a checksum.
ITEMS = {"etcd": 31, "consul": 32, "nats": 33}
PAIRS = [(version, kind) for kind in ITEMS for version in VERSIONS if (version, kind) != ("v4.11.0", "nats")]

#: A node that lives shortly when nobody renews it. etcd grants two seconds at least.
SHORT = ["-ttl=2s", "-interval=500ms"]
SHORT_TOO = ["--register_ttl=2", "--register_interval=0.5"]

#: Without what has no watches: in v4, of one service with Consul there is no news at all, and others are refused.
WATCHING = [pair for pair in PAIRS if pair != ("v4.11.0", "consul")]

PREFIX = "/micro/registry/"


def with_registries(pairs: Sequence[tuple[str, str]] = PAIRS, item: int | None = None) -> pytest.MarkDecorator:
    """Runs a test with these versions and registries; it shows this item of the checklist, or that of the registry."""
    marked = [pytest.param(version, kind, marks=pytest.mark.checklist(item or ITEMS[kind])) for version, kind in pairs]
    return pytest.mark.parametrize(("go_version", "kind"), marked, indirect=["go_version"])


def only(kind: str) -> pytest.MarkDecorator:
    """Runs a test with one registry and each version that has it."""
    return with_registries([pair for pair in PAIRS if pair[1] == kind])


@pytest.fixture(scope="session")
def go_peer(go_version: str) -> Path:
    """The program with Go Micro's registries on servers."""
    return build(go_version, backends=True)


@pytest.fixture
def held(server: Callable[..., NativeServer], kind: str) -> NativeServer:
    """The registry's server."""
    return server(kind)


@pytest.fixture
def environment(environment: dict[str, str], held: NativeServer, kind: str) -> dict[str, str]:
    """Programs in Python use the registry."""
    return environment | {"MICRO_REGISTRY": kind, "MICRO_REGISTRY_ADDRESS": held.address}


@pytest.fixture
def there(held: NativeServer, kind: str) -> str:
    """The flag by which programs in Go use it."""
    return f"-registry={kind}://{held.address}"


@pytest.fixture
async def registry(held: NativeServer, kind: str) -> AsyncIterator[Registry]:
    """The registry, as this process sees it."""
    async with registry_of(kind, held.address) as registry:
        yield registry


StartNode = Callable[..., Awaitable[Program]]
StartServer = Callable[..., Awaitable[GoProgram]]


@pytest.fixture
def start_node(start: Any) -> StartNode:
    """Starts a Python node and waits until it serves."""

    async def start_node(*flags: str, **variables: str) -> Program:
        program: Program = await start("node.py", "--drain_delay=0", *flags, **variables)
        await program.says("service started")
        return program

    return start_node


@pytest.fixture
def start_server(start_go: StartGo, there: str, name: str) -> StartServer:
    """Starts a Go node of the same service and waits until it serves."""

    async def start_server(*flags: str) -> GoProgram:
        return await start_go("server", there, f"-name={name}", *flags)

    return start_server


@pytest.fixture
async def asker(start_go: StartGo, there: str) -> GoProgram:
    """A Go program that asks the registry."""
    return await start_go("registry", there)


async def eventually(ask: Callable[[], Awaitable[set[str]]], ids: set[str]) -> None:
    """Ask until the nodes are these."""
    async with asyncio.timeout(PATIENCE):
        while await ask() != ids:  # noqa: ASYNC110 - what a registry answers is no event
            await asyncio.sleep(0.05)


def seen_by_go(asker: GoProgram, name: str) -> Callable[[], Awaitable[set[str]]]:
    """Asks Go for the ids of a service's nodes."""

    async def ask() -> set[str]:
        return {node["id"] for service in await asked_by_go(asker, name) for node in service["nodes"]}

    return ask


def seen_by_python(registry: Registry, name: str) -> Callable[[], Awaitable[set[str]]]:
    """Asks Python for them."""

    async def ask() -> set[str]:
        return {node.id for service in await registry.get_service(name) for node in service.nodes}

    return ask


# looking up


@with_registries()
async def test_go_finds_lists_and_calls_a_python_node(
    start_node: StartNode, asker: GoProgram, start_go: StartGo, there: str, name: str
) -> None:
    program = await start_node("--server_id=a", "--server_version=1.2.3", "--server_metadata=zone=b")
    [service] = await found_by_go(asker, name)
    assert (service["name"], service["version"]) == (name, "1.2.3")
    assert {"Node.Work", "Node.Look"} <= {endpoint["name"] for endpoint in service["endpoints"]}
    [node] = service["nodes"]
    assert (node["id"], node["address"]) == (f"{name}-a", await program.address())
    assert node["metadata"].items() >= {"zone": "b", "protocol": "mucp", "transport": "http"}.items()
    assert name in {listed["name"] for listed in (await asker.ask("list"))["services"]}
    client = await start_go("client", there, f"-service={name}")
    answer = await client.ask("call", endpoint="Node.Look", body=0)
    assert (answer["error"], answer.get("reply")) == (None, "a")


@with_registries()
async def test_python_finds_lists_and_calls_a_go_node(
    start_server: StartServer, registry: Registry, caller: Service, name: str
) -> None:
    server = await start_server("-version=1.2.3")
    await eventually(seen_by_python(registry, name), {server.ready["id"]})
    [service] = await registry.get_service(name)
    assert (service.name, service.version) == (name, "1.2.3")
    assert {"Greeter.Hello", "Streams.Echo"} <= {endpoint.name for endpoint in service.endpoints}
    [node] = service.nodes
    assert node.address == server.ready["address"]
    assert node.metadata["protocol"] == "mucp"
    assert name in await registry.list_services()
    assert await caller.client.call(name, "Greeter.Hello", {"name": "x"}) == {"greeting": "Hello x"}


@with_registries(item=34)
async def test_two_versions_of_a_service_are_two_entries(
    start_node: StartNode, start_server: StartServer, asker: GoProgram, registry: Registry, name: str
) -> None:
    await start_node("--server_id=a", "--server_version=1")
    await start_node("--server_id=b", "--server_version=2")
    await start_server("-id=c", "-version=2")
    await start_server("-id=d", "-version=3")
    expected = {"1": {f"{name}-a"}, "2": {f"{name}-b", f"{name}-c"}, "3": {f"{name}-d"}}
    async with registry.watch(name) as snapshots:
        services = await until(snapshots, nodes=4)
    assert {service.version: {node.id for node in service.nodes} for service in services} == expected
    by_go = await found_by_go(asker, name, nodes=4)
    assert {service["version"]: {node["id"] for node in service["nodes"]} for service in by_go} == expected


# watching


@with_registries(WATCHING)
async def test_a_go_watcher_sees_python_nodes_come_and_go(
    start_node: StartNode, start_go: StartGo, there: str, name: str
) -> None:
    watcher = await start_go("watcher", there, f"-name={name}")
    program = await start_node("--server_id=a", "--server_version=1.2.3")

    def come() -> dict[str, Any] | None:
        said = (json.loads(line) for line in watcher.printed)
        # Consul's watcher creates a service without a node, whose health is not known, and updates it.
        return next(
            (line for line in said if line["event"] in ("create", "update") and line["id"] == f"{name}-a"), None
        )

    created = await watcher.until(come)
    assert (created["address"], created["version"]) == (await program.address(), "1.2.3")
    assert created["metadata"]["protocol"] == "mucp"
    program.signal(signal.SIGTERM)
    await watcher.event("delete", id=f"{name}-a")


@with_registries()
async def test_a_python_watch_sees_nodes_of_go_come_and_go(
    start_server: StartServer, registry: Registry, name: str
) -> None:
    async with registry.watch(name) as snapshots:
        assert (await anext(snapshots)).services == ()
        server = await start_server()
        [service] = await until(snapshots, nodes=1)
        assert [node.id for node in service.nodes] == [server.ready["id"]]
        server.signal(signal.SIGTERM)
        await until(snapshots, nodes=0)


# trouble


@with_registries()
async def test_nodes_that_were_killed_are_forgotten(
    start_node: StartNode, start_server: StartServer, asker: GoProgram, registry: Registry, name: str
) -> None:
    program = await start_node("--server_id=a", *SHORT_TOO)
    server = await start_server("-id=b", *SHORT)
    by_go, by_python = seen_by_go(asker, name), seen_by_python(registry, name)
    for ids in (by_go, by_python):
        await eventually(ids, {f"{name}-a", f"{name}-b"})
    program.signal(signal.SIGKILL)
    for ids in (by_go, by_python):
        await eventually(ids, {f"{name}-b"})
    server.signal(signal.SIGKILL)
    for ids in (by_go, by_python):
        await eventually(ids, set())


@with_registries()
async def test_nodes_come_back_to_a_server_that_lost_them(
    start_node: StartNode,
    start_server: StartServer,
    held: NativeServer,
    asker: GoProgram,
    registry: Registry,
    name: str,
) -> None:
    await start_node("--server_id=a", *SHORT_TOO)
    await start_server("-id=b", *SHORT)
    by_go, by_python = seen_by_go(asker, name), seen_by_python(registry, name)
    for ids in (by_go, by_python):
        await eventually(ids, {f"{name}-a", f"{name}-b"})
    await held.forget()
    for ids in (by_go, by_python):
        await eventually(ids, {f"{name}-a", f"{name}-b"})


# what only one of them has


@only("etcd")
async def test_keys_of_etcd_are_alike(
    start_node: StartNode, start_server: StartServer, held: NativeServer, name: str
) -> None:
    await start_node("--server_id=a", *SHORT_TOO)
    await start_server("-id=b", *SHORT)
    async with grpc.aio.insecure_channel(held.address) as channel:
        prefix = f"{PREFIX}{name}/".encode()
        answer = await rpc.KVStub(channel).Range(
            rpc.RangeRequest(key=prefix, range_end=prefix[:-1] + b"0"), timeout=PATIENCE
        )
        assert [each.key.decode() for each in answer.kvs] == [f"{PREFIX}{name}/{name}-a", f"{PREFIX}{name}/{name}-b"]
        for each in answer.kvs:
            lease = await rpc.LeaseStub(channel).LeaseTimeToLive(
                rpc.LeaseTimeToLiveRequest(ID=each.lease), timeout=PATIENCE
            )
            assert lease.grantedTTL == 2
    python, go = (json.loads(each.value) for each in answer.kvs)
    assert list(python) == list(go)
    assert [len(record["nodes"]) for record in (python, go)] == [1, 1]
    assert list(python["nodes"][0]) == list(go["nodes"][0])
    assert list(python["endpoints"][0]) == list(go["endpoints"][0])


@only("consul")
async def test_a_node_that_is_critical_is_hidden(
    start_node: StartNode, start_server: StartServer, asker: GoProgram, registry: Registry, name: str
) -> None:
    program = await start_node("--server_id=a", *SHORT_TOO)
    server = await start_server("-id=b", *SHORT)
    by_go, by_python = seen_by_go(asker, name), seen_by_python(registry, name)
    for ids in (by_go, by_python):
        await eventually(ids, {f"{name}-a", f"{name}-b"})
    for process in (program, server):
        process.signal(signal.SIGSTOP)
    for ids in (by_go, by_python):
        await eventually(ids, set())
    for process in (program, server):
        process.signal(signal.SIGCONT)
    for ids in (by_go, by_python):
        await eventually(ids, {f"{name}-a", f"{name}-b"})


@only("nats")
async def test_other_subjects_of_nats_are_another_mesh(
    start_node: StartNode, start_go: StartGo, asker: GoProgram, there: str, name: str
) -> None:
    older = {
        "MICRO_REGISTRY_NATS_QUERY_TOPIC": "micro.registry.nats.query",
        "MICRO_REGISTRY_NATS_WATCH_TOPIC": "micro.registry.nats.watch",
    }
    watcher = await start_go("watcher", f"{there}?subjects=micro.registry.nats", f"-name={name}")
    program = await start_node("--server_id=a", **older)
    await watcher.event("create", id=f"{name}-a")
    [service] = await found_by_go(await start_go("registry", f"{there}?subjects=micro.registry.nats"), name)
    assert [node["address"] for node in service["nodes"]] == [await program.address()]
    assert await asked_by_go(asker, name) == []
