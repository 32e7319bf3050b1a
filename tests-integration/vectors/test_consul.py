"""Consul: recorded tags are understood, and what pymicro registers has the same in them."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from recorded import Recording
from recorded_records import value_of

from pymicro.plugins import Build
from pymicro.registry import Endpoint, Node, ServiceRecord
from pymicro_registry_consul._registry import ConsulRegistry
from pymicro_registry_consul._wire import Health, duration, read, write

CONSUL = Recording("consul_registry.json")

BODIES = CONSUL.names("register_.*|python_register_go_calls")


def body_of(name: str) -> dict[str, Any]:
    return dict(json.loads(CONSUL[name].data))


def instance_of(body: dict[str, Any]) -> Health:
    """What an agent answers for a body that was registered."""
    return msgspec.convert({"Node": {}, "Service": {**body, "Service": body["Name"]}, "Checks": []}, Health)


def record_of(name: str) -> ServiceRecord:
    """The record that the recording states."""
    stated, tags = CONSUL[name].meaning, CONSUL[name].meaning["tags"]
    body = body_of(name)
    metadata: dict[str, str] = {}
    for letter, text in tags:
        if letter == "t-":
            metadata |= json.loads(text)
    endpoints = (json.loads(text) for letter, text in tags if letter == "e-")
    (version,) = (text for letter, text in tags if letter == "v-")
    assert "ID" not in stated or (stated["ID"], stated["Address"]) == (body["ID"], body["Address"])
    return ServiceRecord(
        body["Name"],
        version,
        endpoints=tuple(
            Endpoint(each["name"], value_of(each["request"]), value_of(each["response"]), each["metadata"])
            for each in endpoints
        ),
        nodes=(Node(body["ID"], f"{body['Address']}:{body['Port']}", metadata),),
    )


def inflated(tags: list[str]) -> list[tuple[str, str]]:
    """Without the few bytes in which deflated text differs between Go and Python, and in the order of the text."""
    return sorted((tag[:2], zlib.decompressobj().decompress(bytes.fromhex(tag[2:])).decode()) for tag in tags)


def seconds(text: str) -> float:
    """A duration of Go's, of minutes and seconds."""
    minutes, _, rest = text.rpartition("m")
    return 60 * float(minutes or 0) + float(rest.removesuffix("s"))


@CONSUL.check(BODIES)
def test_what_is_registered_is_understood(name: str) -> None:
    assert read([instance_of(body_of(name))]) == (record_of(name),)


@CONSUL.check(BODIES)
def test_the_same_is_registered(name: str) -> None:
    recorded = body_of(name)
    check = recorded["Check"]
    (written,) = write(record_of(name), seconds(check["TTL"]) if check else 0).values()
    assert inflated(written["tags"]) == inflated(recorded["Tags"])
    assert {key: written[key] for key in ("service_id", "name", "address", "port", "meta")} == {
        "service_id": recorded["ID"],
        "name": recorded["Name"],
        "address": recorded["Address"],
        "port": recorded["Port"],
        "meta": recorded["Meta"],
    }
    # Go's begins as critical, and is passed at once; this one begins as passing.
    assert written["check"] == (check and {**check, "Status": "passing"})


def test_durations_are_such_as_go_reads() -> None:
    said = {90: "1m30s", 60: "1m0s", 8: "8s", 1.5: "1.5s", 0.25: "0.25s", 3600: "1h0m0s", 5405: "1h30m5s"}
    assert {seconds: duration(seconds) for seconds in said} == said


@CONSUL.check(["health_after_kill9"])
def test_a_critical_node_is_hidden(name: str) -> None:
    answer = json.loads(CONSUL[name].data)
    answer["Service"]["Tags"] = body_of("register_ttl_8s")["Tags"]
    assert read([msgspec.convert(answer, Health)]) == ()
    for check in answer["Checks"]:
        check["Status"] = "passing"
    assert read([msgspec.convert(answer, Health)]) == (record_of("register_ttl_8s"),)


@CONSUL.check(["go_watch_results"])
def test_what_go_understood_is_what_is_written(name: str) -> None:
    for line in CONSUL[name].text.splitlines():
        service = json.loads(line)["Service"]
        for node in service["nodes"] or ():
            record = ServiceRecord(
                service["name"], service["version"], nodes=(Node(node["id"], node["address"], node["metadata"]),)
            )
            (body,) = write(record, 8).values()
            recorded = body_of("python_register_go_calls")
            assert (body["name"], body["service_id"], body["address"]) == ("pysvc", recorded["ID"], recorded["Address"])
            assert inflated(body["tags"]) == [*inflated(recorded["Tags"])[:1], ("v-", "0.1")]


@pytest.fixture
async def agent() -> AsyncIterator[tuple[str, list[str]]]:
    """An agent with one service at most; its address, and what it was asked."""
    asked: list[str] = []
    services: list[dict[str, Any]] = []
    over = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.raw_path}")
        if request.path == "/v1/agent/service/register":
            given = await request.json()
            services[:] = [{"ID": given["id"], "Service": given["name"], "Address": given["address"]}]
            services[0] |= {"Port": given["port"], "Tags": given["tags"]}
        if "index" in request.query:
            await over.wait()
        body = services[0] if request.path.startswith("/v1/agent") else {} if "catalog" in request.path else []
        return web.json_response(body, headers={"X-Consul-Index": "42"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"{host}:{port}", asked
    over.set()
    await runner.cleanup()


@CONSUL.check(["calls_of_a_server_life"])
async def test_the_same_is_asked_to_register(name: str, agent: tuple[str, list[str]]) -> None:
    """Go adds an empty note."""
    address, asked = agent
    async with ConsulRegistry(build=Build(addresses=(address,))) as registry:
        await registry.register(ServiceRecord("greeter", nodes=(Node("greeter-id1", "127.0.0.1:1"),)), ttl=90)
        assert (
            asked == [f"{method} {path.partition('?')[0]}" for _, method, path, _ in json.loads(CONSUL[name].data)][:2]
        )


@CONSUL.check(["deregister"])
async def test_the_same_is_asked_to_deregister(name: str, agent: tuple[str, list[str]]) -> None:
    """After a look whose service it is."""
    address, asked = agent
    async with ConsulRegistry(build=Build(addresses=(address,))) as registry:
        await registry.register(ServiceRecord("clean", nodes=(Node("clean-id1", "127.0.0.1:1"),)), ttl=90)
    assert asked[-2:] == ["GET /v1/agent/service/clean-id1", CONSUL[name].text]


@CONSUL.check(["lookup_query"])
async def test_the_same_is_asked_to_look_up(name: str, agent: tuple[str, list[str]]) -> None:
    """Go takes answers of servers that may be behind (`stale`), and this does not."""
    address, asked = agent
    async with ConsulRegistry(build=Build(addresses=(address,))) as registry:
        await registry.get_service("a/b c")
        await registry.list_services()
    assert asked == [line.removesuffix("?stale=") for line in CONSUL[name].text.splitlines()]


@CONSUL.check(["watch_query"])
async def test_the_same_is_asked_to_watch(name: str, agent: tuple[str, list[str]]) -> None:
    """This also says how long it waits."""
    address, asked = agent
    async with ConsulRegistry(build=Build(addresses=(address,))) as registry, registry.watch("pysvc") as snapshots:
        await anext(snapshots)
        async with asyncio.timeout(5):
            while len(asked) < 2:  # noqa: ASYNC110  # of the agent, which has no event for it
                await asyncio.sleep(0.01)
    assert [line.partition("&wait=")[0] for line in asked] == CONSUL[name].text.splitlines()


def test_every_vector_has_a_check() -> None:
    assert CONSUL.unchecked == set()
