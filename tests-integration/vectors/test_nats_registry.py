"""The NATS registry: what Go says is understood, and pymicro says the same, byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import nats
import pytest
from recorded import Recording
from recorded_records import record_of

from pymicro.plugins import Build
from pymicro.registry import ServiceRecord, Snapshot
from pymicro_registry_nats import NatsRegistryOptions
from pymicro_registry_nats._registry import NatsRegistry
from pymicro_testing.servers import NatsServer

PATIENCE = 5.0
NATS = Recording("nats_registry.json")

GO, PYTHON = "ng", "pysvc"
CREATED = {GO: "watch_create", PYTHON: "watch_create_python"}
DELETED = {GO: "watch_delete", PYTHON: "watch_delete_python"}
ANSWERED = {GO: "answer_ng", PYTHON: "answer_pysvc"}


def record(service: str) -> ServiceRecord:
    """What the recording states of a service."""
    return record_of(json.loads(NATS[ANSWERED[service]].data))


def subject(name: str) -> str:
    return str(NATS[name].meaning["subject"])


@pytest.fixture
async def registry(nats_server: NatsServer) -> AsyncIterator[NatsRegistry]:
    options = NatsRegistryOptions(refresh=3600.0)
    async with asyncio.timeout(PATIENCE), NatsRegistry(options, Build(addresses=(nats_server.address,))) as registry:
        yield registry


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Any]:
    """A client that is not pymicro's."""
    connection = await nats.connect(f"nats://{nats_server.address}")
    yield connection
    await connection.close()


async def listening(connection: Any, subject: str) -> Any:
    subscription = await connection.subscribe(subject)
    await connection.flush()
    return subscription


async def until(snapshots: AsyncIterator[Snapshot], arrived: Callable[[Snapshot], bool]) -> Snapshot:
    async for snapshot in snapshots:
        if arrived(snapshot):
            return snapshot
    raise AssertionError("the watch ended")


@NATS.check(ANSWERED, of=lambda service: (CREATED[service], DELETED[service]))
async def test_what_is_told_is_understood(name: str, registry: NatsRegistry, connection: Any) -> None:
    async with registry.watch(name) as snapshots:
        assert (await anext(snapshots)).services == ()
        await connection.publish(subject(CREATED[name]), NATS[CREATED[name]].data)
        assert (await until(snapshots, lambda snapshot: bool(snapshot.services))).services == (record(name),)
        await connection.publish(subject(DELETED[name]), NATS[DELETED[name]].data)
        await until(snapshots, lambda snapshot: not any(each.nodes for each in snapshot.services))


@NATS.check(ANSWERED, of=lambda service: (ANSWERED[service],))
async def test_what_is_answered_is_understood(name: str, registry: NatsRegistry, connection: Any) -> None:
    async def answer(message: Any) -> None:
        await message.respond(NATS[ANSWERED[name]].data)

    await connection.subscribe(subject("query_get"), cb=answer)
    await connection.flush()
    assert await registry.get_service(name) == (record(name),)
    assert await registry.list_services() == [name]


@NATS.check(["query_get", "query_list"])
async def test_the_same_is_asked(name: str, registry: NatsRegistry, connection: Any) -> None:
    questions = await listening(connection, subject(name))
    await (registry.get_service(GO) if name == "query_get" else registry.list_services())
    question = await questions.next_msg(timeout=PATIENCE)
    assert (question.data, bool(question.reply)) == (NATS[name].data, NATS[name].meaning["reply"])


@NATS.check([GO], of=lambda service: (CREATED[service], DELETED[service]))
async def test_the_same_is_told(name: str, registry: NatsRegistry, connection: Any) -> None:
    told = await listening(connection, subject(CREATED[name]))
    registration = await registry.register(record(name), ttl=60)
    await registration.aclose()
    for vector in (NATS[CREATED[name]], NATS[DELETED[name]]):
        message = await told.next_msg(timeout=PATIENCE)
        assert (message.data, bool(message.reply)) == (vector.data, vector.meaning["reply"])


@NATS.check([GO], of=lambda service: (ANSWERED[service],))
@pytest.mark.parametrize("question", ["query_get", "query_list"])
async def test_the_same_is_answered(name: str, question: str, registry: NatsRegistry, connection: Any) -> None:
    await registry.register(record(name), ttl=60)
    answer = await connection.request(subject(question), NATS[question].data, timeout=PATIENCE)
    assert (answer.data, bool(answer.reply)) == (NATS[ANSWERED[name]].data, NATS[ANSWERED[name]].meaning["reply"])


@NATS.check(["go_watch_results"])
async def test_what_go_understood_is_what_is_told(name: str, registry: NatsRegistry, connection: Any) -> None:
    """An empty list there, null here: the same to Go. And of what is gone, no more is told than Go itself does."""
    told = await listening(connection, subject("watch_create_python"))
    registration = await registry.register(record(PYTHON), ttl=60)
    await registration.aclose()
    created, deleted = map(json.loads, NATS[name].text.splitlines())
    for expected in (created, deleted):
        expected["Service"]["endpoints"] = None
    deleted["Service"]["nodes"][0]["metadata"] = None
    assert json.loads((await told.next_msg(timeout=PATIENCE)).data) == created
    assert json.loads((await told.next_msg(timeout=PATIENCE)).data) == deleted


def test_every_vector_has_a_check() -> None:
    assert NATS.unchecked == set()
