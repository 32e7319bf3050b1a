"""What Go Micro's registry on NATS writes and reads, played by a client that knows nothing of pymicro."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError
from pymicro.plugins import TLS
from pymicro.record import Endpoint, Node, ServiceRecord, Value
from pymicro.registry import Snapshot
from pymicro_registry_nats import _mirror
from pymicro_testing.servers import NatsServer

PATIENCE = 5.0
GREETER = ServiceRecord(
    "greeter",
    "1.2.3",
    endpoints=(Endpoint("Greeter.Hello", Value("Req", "Req", (Value("name", "string"),)), None),),
    nodes=(Node("greeter-id1", "10.0.0.5:8080", {"protocol": "mucp"}),),
)
#: The same as Go writes it.
WRITTEN = {
    "name": "greeter",
    "version": "1.2.3",
    "metadata": None,
    "endpoints": [
        {
            "request": {
                "name": "Req",
                "type": "Req",
                "values": [{"name": "name", "type": "string", "values": None}],
            },
            "response": None,
            "metadata": {},
            "name": "Greeter.Hello",
        }
    ],
    "nodes": [{"metadata": {"protocol": "mucp"}, "id": "greeter-id1", "address": "10.0.0.5:8080"}],
}
#: What a Go server tells when it stops: it says no more of the node.
STOPPED = {
    "name": "greeter",
    "version": "1.2.3",
    "metadata": None,
    "endpoints": None,
    "nodes": [{"metadata": None, "id": "greeter-id1", "address": "10.0.0.5:8080"}],
}


class Peer:
    """A client of NATS, with the subjects of Go Micro."""

    def __init__(self, connection: Any, prefix: str = "micro.nats") -> None:
        self.connection, self.prefix = connection, prefix
        self.services: list[Any] = []
        self.asked: list[Any] = []
        self.subscription: Any = None

    async def run(self, *services: Any) -> None:
        """Answer for these services."""
        self.services = list(services)
        self.subscription = await self.connection.subscribe(f"{self.prefix}.query", cb=self._answer)
        await self.connection.flush()

    async def _answer(self, message: Any) -> None:
        question = json.loads(message.data)
        self.asked.append(question)
        for service in self.services:
            if question["Action"] == "list" or question["Service"]["name"] == service["name"]:
                await message.respond(json.dumps(service).encode())

    async def ask(self, question: Any) -> Any:
        """One answer to a question."""
        answer = await self.connection.request(f"{self.prefix}.query", json.dumps(question).encode(), timeout=PATIENCE)
        return json.loads(answer.data)

    async def tell(self, action: str, service: Any) -> None:
        """Say that something changed."""
        told = json.dumps({"Service": service, "Action": action}).encode()
        await self.connection.publish(f"{self.prefix}.watch", told)
        await self.connection.flush()

    async def hear(self) -> Any:
        """Subscribe to changes."""
        subscription = await self.connection.subscribe(f"{self.prefix}.watch")
        await self.connection.flush()
        return subscription


@asynccontextmanager
async def connected(server: NatsServer, prefix: str = "micro.nats") -> AsyncIterator[Peer]:
    connection = await nats.connect(f"nats://{server.address}")
    try:
        yield Peer(connection, prefix)
    finally:
        await connection.close()


@pytest.fixture
async def peer(nats_server: NatsServer) -> AsyncIterator[Peer]:
    async with connected(nats_server) as peer:
        yield peer


async def told(subscription: Any) -> Any:
    return json.loads((await subscription.next_msg(timeout=PATIENCE)).data)


async def until(snapshots: AsyncIterator[Snapshot], fits: Callable[[Snapshot], bool]) -> Snapshot:
    async with asyncio.timeout(PATIENCE):
        async for snapshot in snapshots:
            if fits(snapshot):
                return snapshot
    raise AssertionError("the watch ended")


def nodes(snapshot: Snapshot) -> set[str]:
    return {node.id for record in snapshot.services for node in record.nodes}


async def test_what_is_registered_is_told_and_answered_as_go_does(open_registry: Any, peer: Peer) -> None:
    registry = await open_registry()
    changes = await peer.hear()
    registration = await registry.register(GREETER, ttl=30)
    assert await told(changes) == {"Service": WRITTEN, "Action": "create"}
    question = {"name": "greeter", "version": "", "metadata": None, "endpoints": None, "nodes": None}
    assert await peer.ask({"Service": question, "Action": "get"}) == WRITTEN
    assert await peer.ask({"Service": None, "Action": "list"}) == WRITTEN
    await registration.aclose()
    left = await told(changes)
    assert (left["Action"], left["Service"]["name"], left["Service"]["version"]) == ("delete", "greeter", "1.2.3")
    assert [(node["id"], node["address"]) for node in left["Service"]["nodes"]] == [("greeter-id1", "10.0.0.5:8080")]


async def test_it_is_told_again_three_times_in_its_ttl(open_registry: Any, peer: Peer) -> None:
    registry = await open_registry()
    changes = await peer.hear()
    await registry.register(GREETER, ttl=0.3)
    for _ in range(4):
        assert (await told(changes))["Action"] == "create"


async def test_what_go_runs_is_found(open_registry: Any, peer: Peer) -> None:
    await peer.run(WRITTEN, {**WRITTEN, "name": "other"})
    registry = await open_registry()
    assert await registry.get_service("greeter") == (GREETER,)
    assert await registry.list_services() == ["greeter", "other"]
    assert peer.asked == [
        {
            "Service": {"name": "greeter", "version": "", "metadata": None, "endpoints": None, "nodes": None},
            "Action": "get",
        },
        {"Service": None, "Action": "list"},
    ]


async def test_versions_of_one_process_are_found_apart(open_registry: Any, peer: Peer) -> None:
    await peer.run(WRITTEN, {**WRITTEN, "version": "2.0.0"})
    registry = await open_registry()
    assert {record.version for record in await registry.get_service("greeter")} == {"1.2.3", "2.0.0"}
    async with registry.watch() as everything:
        first = await until(everything, lambda snapshot: bool(snapshot.services))
        assert {record.version for record in first.services} == {"1.2.3", "2.0.0"}


async def test_a_watch_hears_of_a_go_server_that_starts_and_stops(open_registry: Any, peer: Peer) -> None:
    registry = await open_registry(refresh=3600.0)
    async with registry.watch("greeter") as snapshots:
        assert not (await anext(snapshots)).services
        await peer.tell("create", WRITTEN)
        assert (await until(snapshots, nodes)).services == (GREETER,)
        await peer.tell("delete", STOPPED)
        assert not (await until(snapshots, lambda snapshot: not nodes(snapshot))).services


async def test_an_older_go_has_other_topics(open_registry: Any, nats_server: NatsServer) -> None:
    older = "micro.registry.nats"
    registry = await open_registry(query_topic=f"{older}.query", watch_topic=f"{older}.watch")
    async with connected(nats_server, older) as peer:
        await peer.run(WRITTEN)
        assert await registry.get_service("greeter") == (GREETER,)


async def test_who_is_killed_is_forgotten_when_the_refresh_finds_nobody(open_registry: Any, peer: Peer) -> None:
    await peer.run(WRITTEN)
    registry = await open_registry(refresh=0.1, query_time=0.02)
    async with registry.watch("greeter") as snapshots:
        await until(snapshots, nodes)
        peer.services.clear()
        await until(snapshots, lambda snapshot: not nodes(snapshot))


async def test_after_an_outage_those_who_were_there_have_time_to_come_back(
    open_registry: Any, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mirror, "_SETTLE", 1.0)
    registry = await open_registry(query_time=0.02)
    async with registry.watch("greeter") as snapshots:
        async with connected(nats_server) as peer:
            await peer.run(WRITTEN)
            await peer.tell("create", WRITTEN)
            await until(snapshots, nodes)
        await nats_server.restart()
        stale = await until(snapshots, lambda snapshot: snapshot.stale)
        assert isinstance(stale.error, BackendUnavailable)
        back = await until(snapshots, lambda snapshot: not snapshot.stale)
        assert nodes(back) == {"greeter-id1"}
        await until(snapshots, lambda snapshot: not nodes(snapshot))


@pytest.mark.parametrize("garbage", [b"", b"{", b"[1]", b'{"Service":{"name":7},"Action":"create"}', b"\xff" * 100])
async def test_garbage_harms_nobody(open_registry: Any, peer: Peer, garbage: bytes) -> None:
    registry = await open_registry()
    await registry.register(GREETER, ttl=30)
    async with registry.watch("greeter") as snapshots:
        await until(snapshots, nodes)
        for topic in ("micro.nats.query", "micro.nats.watch"):
            await peer.connection.publish(topic, garbage, reply="nobody.hears")
        await peer.tell("create", {**WRITTEN, "nodes": [{"id": "greeter-id2", "address": "10.0.0.6:1"}]})
        await until(snapshots, lambda snapshot: nodes(snapshot) == {"greeter-id1", "greeter-id2"})
    assert await registry.get_service("greeter") == (GREETER,)


async def test_a_record_that_no_message_can_hold_is_refused(open_registry: Any, server: Callable[..., Any]) -> None:
    small = server("nats", settings={"max_payload": "4096"})
    registry = await open_registry(small.address)
    with pytest.raises(ConfigurationError, match=r"'greeter' is too large.*4096"):
        await registry.register(ServiceRecord("greeter", metadata={"x": "y" * 5000}, nodes=GREETER.nodes), ttl=30)
    await registry.register(GREETER, ttl=30)
    assert await registry.get_service("greeter") == (GREETER,)


@pytest.mark.parametrize("record", [ServiceRecord("greeter"), ServiceRecord("", nodes=GREETER.nodes)])
async def test_records_without_name_or_nodes_are_refused(open_registry: Any, record: ServiceRecord) -> None:
    registry = await open_registry()
    with pytest.raises(ConfigurationError, match="at least one node"):
        await registry.register(record, ttl=30)


async def test_topics_that_are_no_subjects_are_refused(open_registry: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a NATS subject"):
        await open_registry("127.0.0.1:1", query_topic="a b")


PERMISSIONS = """{users: [{user: "reader", password: "p", permissions: {
    publish: {deny: ["micro.nats.watch"]}, subscribe: {allow: ["_INBOX.>", "micro.nats.>"]}}}]}"""


async def test_who_may_not_register_is_told(open_registry: Any, server: Callable[..., Any]) -> None:
    locked = server("nats", settings={"authorization": PERMISSIONS})
    registry = await open_registry(locked.address, username="reader", password="p")
    with pytest.raises(BackendRefused, match=r"the user 'reader' may not publish to the subject 'micro\.nats\.watch'"):
        await registry.register(GREETER, ttl=30)
    assert await registry.get_service("greeter") == ()
    stranger = await open_registry(locked.address, username="stranger", password="p")
    with pytest.raises(BackendRefused, match="does not let the user 'stranger' in"):
        await stranger.get_service("greeter")
    with pytest.raises(BackendRefused, match="does not let the user 'stranger' in"):
        await stranger.register(GREETER, ttl=30)


async def test_tls_with_a_client_certificate(open_registry: Any, server: Callable[..., Any]) -> None:
    secure = server("nats", tls=True)
    files = secure.certificates
    tls = TLS(cert=str(files.certificate), key=str(files.key), ca=str(files.authority))
    registry, other = await open_registry(secure.address, tls=tls), await open_registry(secure.address, tls=tls)
    await registry.register(GREETER, ttl=30)
    assert await other.get_service("greeter") == (GREETER,)


async def test_any_of_several_addresses_will_do(open_registry: Any, nats_server: NatsServer) -> None:
    registry = await open_registry("127.0.0.1:1", nats_server.address)
    await registry.register(GREETER, ttl=30)
    assert await registry.get_service("greeter") == (GREETER,)
