"""Watches go on through everything, and neither lose nor invent a node."""

from __future__ import annotations

import asyncio
import zlib
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from pymicro.errors import BackendUnavailable
from pymicro.registry import Snapshot
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import ConsulServer


def ids(snapshot: Snapshot) -> set[str]:
    return {node.id.rpartition("-")[2] for service in snapshot.services for node in service.nodes}


def fresh(*expected: str) -> Any:
    return lambda snapshot: not snapshot.stale and ids(snapshot) == set(expected)


async def test_what_changed_while_it_was_cut_off_is_seen(
    open_registry: Any,
    record: Any,
    name: str,
    until: Any,
    consul_server: ConsulServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pymicro_registry_consul._registry.SETTLE", 0.5)
    registry = await open_registry()
    registrations = {id: await registry.register(record(name, id), ttl=90) for id in ("a", "b")}
    async with FaultProxy(consul_server.address) as proxy:
        watching = await open_registry(proxy.address)
        async with watching.watch(name) as snapshots:
            await until(snapshots, fresh("a", "b"))
            await proxy.stop()
            stale = await until(snapshots, lambda snapshot: snapshot.stale)
            assert (ids(stale), type(stale.error)) == ({"a", "b"}, BackendUnavailable)
            await registrations["a"].aclose()
            await registry.register(record(name, "c"), ttl=90)
            await proxy.start()
            seen: list[Snapshot] = []
            await until(snapshots, fresh("b", "c"), seen)
            assert len(seen) == 1
        await watching.aclose()


async def test_no_node_is_missed_while_the_server_is_killed_and_when_it_loses_its_data(
    open_registry: Any, consul: Any, record: Any, name: str, until: Any, consul_server: ConsulServer
) -> None:
    await consul.clear()  # a watch of all would wait for services that do not come back
    registry = await open_registry(heartbeat=0.2)
    for id, ttl in (("a", 90), ("b", 0), ("c", 1)):  # the last one expires during an outage
        await registry.register(record(name, id), ttl=ttl)
    outages = asyncio.Barrier(3)

    def own(snapshot: Snapshot) -> set[str]:
        return {node.id[-1] for service in snapshot.services if service.name == name for node in service.nodes}

    async def see_it_through(watched: str | None) -> None:
        async with (await open_registry(heartbeat=0.2)).watch(watched) as snapshots:
            await until(snapshots, lambda snapshot: own(snapshot) == {"a", "b", "c"})
            for _ in range(2):
                seen: list[Snapshot] = []
                await outages.wait()
                await until(snapshots, lambda snapshot: snapshot.stale, seen)
                await until(snapshots, lambda snapshot: not snapshot.stale, seen)
                assert all(own(snapshot) == {"a", "b", "c"} for snapshot in seen)

    async with asyncio.timeout(60), asyncio.TaskGroup() as watching:
        for watched in (name, None):
            watching.create_task(see_it_through(watched))
        await outages.wait()
        await consul_server.kill()
        await consul_server.start()
        await outages.wait()
        await consul_server.forget()


async def test_a_hung_server_is_found_out_and_found_again(
    open_registry: Any, record: Any, name: str, until: Any, consul_server: ConsulServer
) -> None:
    registry = await open_registry(heartbeat=0.2, connect_timeout=0.5)
    await registry.register(record(name, "a"), ttl=90)
    async with registry.watch(name) as snapshots:
        await until(snapshots, fresh("a"))
        await consul_server.pause()
        stale = await until(snapshots, lambda snapshot: snapshot.stale)
        assert ids(stale) == {"a"}
        await consul_server.resume()
        await until(snapshots, fresh("a"))


async def test_watches_of_one_service_share_one(open_registry: Any, record: Any, name: str, until: Any) -> None:
    registry = await open_registry()
    async with registry.watch(name) as one:
        await until(one, fresh())
        tasks = asyncio.all_tasks()
        async with registry.watch(name) as other:
            await until(other, fresh())
            await registry.get_service(name)
            assert asyncio.all_tasks() == tasks


async def test_a_watch_of_all_sees_services_without_checks(
    open_registry: Any, record: Any, name: str, until: Any
) -> None:
    registry, watching = await open_registry(), await open_registry()

    def own(snapshot: Snapshot) -> list[str]:
        return [node.metadata["at"] for each in snapshot.services if each.name == name for node in each.nodes]

    async with watching.watch() as snapshots:
        await until(snapshots, lambda snapshot: not snapshot.stale)
        registration = await registry.register(record(name, at="1"), ttl=0)
        await until(snapshots, lambda snapshot: own(snapshot) == ["1"])
        await registration.update(record(name, at="2"))
        await until(snapshots, lambda snapshot: own(snapshot) == ["2"])
        await registration.aclose()
        await until(snapshots, lambda snapshot: own(snapshot) == [])


async def test_what_others_put_into_tags_is_passed_over(
    open_registry: Any, consul: Any, name: str, record: Any
) -> None:
    registry = await open_registry()
    bomb = zlib.compress(b"0" * 50_000_000).hex()
    tags = [
        "",
        "v",
        "e",
        "t",
        "v-",
        "v-xyz",
        "e-00",
        "t-789c",
        "production",
        f"e-{bomb}",
        f"v-{zlib.compress(b'7').hex()}",
    ]
    tags += [f"e-{zlib.compress(text).hex()}" for text in (b"[]", b"{", b'{"name": 7}', b"\xff", b"{}")]
    await consul.put(
        "agent/service/register", {"ID": f"{name}-x", "Name": name, "Tags": tags, "Address": "::1", "Port": 5}
    )
    (service,) = await registry.get_service(name)
    assert (service.version, service.endpoints, service.metadata) == ("7", (), {})
    assert [(node.address, node.metadata) for node in service.nodes] == [("[::1]:5", {})]
    await consul.put(f"agent/service/deregister/{name}-x")


async def test_an_index_that_goes_back_begins_anew(open_registry: Any, name: str, until: Any) -> None:
    """As when a snapshot is restored: the connection stays, and the nodes that are missing may register again."""
    answers: asyncio.Queue[tuple[int, list[str]]] = asyncio.Queue()
    asked: list[tuple[str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.query.get("index", ""), request.query.get("wait")))
        index, nodes = await answers.get()
        found = [
            {
                "Node": {"Address": "10.0.0.1"},
                "Service": {"ID": f"{name}-{id}", "Service": name, "Port": 1},
                "Checks": [],
            }
            for id in nodes
        ]
        return web.json_response(found, headers={"X-Consul-Index": str(index)})

    app = web.Application()
    app.router.add_get(f"/v1/health/service/{name}", answer)

    async def leader(_: web.Request) -> web.Response:
        return web.json_response("127.0.0.1:8300")

    app.router.add_get("/v1/status/leader", leader)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        registry = await open_registry(f"{host}:{port}")
        async with registry.watch(name) as snapshots:
            answers.put_nowait((100, ["a", "b"]))
            first = await until(snapshots, fresh("a", "b"))
            assert first.services[0].nodes[0].address == "10.0.0.1:1"
            answers.put_nowait((7, ["a"]))
            stale = await until(snapshots, lambda snapshot: snapshot.stale)
            assert ids(stale) == {"a", "b"}
            answers.put_nowait((8, ["a", "b"]))
            await until(snapshots, fresh("a", "b"))
            answers.put_nowait((0, ["a"]))  # an index that would not block
            await until(snapshots, lambda snapshot: snapshot.stale)
            answers.put_nowait((9, ["b", "a"]))
            await until(snapshots, fresh("a", "b"))
        await registry.aclose()
    finally:
        answers.put_nowait((9, []))  # nobody waits for this one any more
        await runner.cleanup()
    indexes = [index for index, _ in asked]
    assert indexes[:5] == ["", "100", "7", "8", "1"]
    assert all(wait is not None and wait.endswith("ms") for index, wait in asked if index)


async def test_many_watches_hold_up_nothing_else(open_registry: Any, name: str) -> None:
    """Each is a request that waits: a pool of connections with the usual limit of 100 would be used up."""
    waiting: set[str] = set()
    all_wait, over = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if "index" in request.query:
            waiting.add(request.path)
            if len(waiting) == 120:
                all_wait.set()
            await over.wait()
        return web.json_response([], headers={"X-Consul-Index": "7"})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        registry = await open_registry(f"{host}:{port}", heartbeat=30)
        async with AsyncExitStack() as stack:
            for number in range(120):
                await stack.enter_async_context(registry.watch(f"{name}-{number}"))
            async with asyncio.timeout(15):
                await all_wait.wait()
            assert await registry.get_service(name) == ()
        await registry.aclose()
    finally:
        over.set()
        await runner.cleanup()
