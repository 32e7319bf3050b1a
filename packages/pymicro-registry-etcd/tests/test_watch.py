"""Watches go on through everything, and neither lose nor invent a node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pymicro.errors import BackendUnavailable
from pymicro.registry import Snapshot
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import EtcdServer


def ids(snapshot: Snapshot) -> set[str]:
    return {node.id.rpartition("-")[2] for service in snapshot.services for node in service.nodes}


def fresh(*expected: str) -> Any:
    return lambda snapshot: not snapshot.stale and ids(snapshot) == set(expected)


@pytest.mark.parametrize("compacted", [False, True])
async def test_what_changed_while_it_was_cut_off_is_seen(
    open_registry: Any,
    etcd: Any,
    record: Any,
    name: str,
    until: Any,
    etcd_server: EtcdServer,
    compacted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pymicro.registry.follower.SETTLE", 0.5)
    registry = await open_registry()
    registrations = {id: await registry.register(record(name, id), ttl=90) for id in ("a", "b")}
    async with FaultProxy(etcd_server.address) as proxy:
        watching = await open_registry(proxy.address)
        async with watching.watch(name) as snapshots:
            await until(snapshots, fresh("a", "b"))
            await proxy.stop()
            stale = await until(snapshots, lambda snapshot: snapshot.stale)
            assert (ids(stale), type(stale.error)) == ({"a", "b"}, BackendUnavailable)
            await registrations["a"].aclose()
            await registry.register(record(name, "c"), ttl=90)
            if compacted:
                await etcd.compact()
            await proxy.start()
            seen: list[Snapshot] = []
            await until(snapshots, fresh("b", "c"), seen)
            assert len(seen) == 1
        await watching.aclose()


async def test_no_node_is_missed_while_the_server_is_killed_again_and_again(
    open_registry: Any, record: Any, name: str, until: Any, etcd_server: EtcdServer
) -> None:
    registry, watching = await open_registry(), await open_registry()
    await registry.register(record(name, "a"), ttl=90)
    async with watching.watch(name) as snapshots:
        await until(snapshots, fresh("a"))
        for _ in range(3):
            await etcd_server.kill()
            seen: list[Snapshot] = []
            await until(snapshots, lambda snapshot: snapshot.stale, seen)
            await etcd_server.start()
            await until(snapshots, fresh("a"), seen)
            assert all(ids(snapshot) == {"a"} for snapshot in seen)


async def test_nodes_are_kept_while_a_server_that_lost_its_data_hears_of_them_again(
    open_registry: Any, record: Any, name: str, until: Any, etcd_server: EtcdServer
) -> None:
    registry, watching = await open_registry(), await open_registry()
    gone = await registry.register(record(name, "gone"), ttl=90)
    for id in ("a", "b"):
        await registry.register(record(name, id), ttl=90)
    await gone.aclose()
    async with watching.watch(name) as snapshots:
        await until(snapshots, fresh("a", "b"))
        await etcd_server.forget()
        seen: list[Snapshot] = []
        await until(snapshots, fresh("a", "b"), seen)
        assert all(ids(snapshot) == {"a", "b"} for snapshot in seen)
        assert any(snapshot.stale for snapshot in seen)


async def test_nodes_are_kept_when_their_leases_ended_in_an_etcd_that_hung(
    open_registry: Any, record: Any, name: str, until: Any, etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says at first who was there, and only then looks whose time is over."""
    monkeypatch.setattr("pymicro.registry.follower.SETTLE", 2.0)
    registry = await open_registry(heartbeat=0.1, connect_timeout=0.1)
    watching = await open_registry(heartbeat=0.1, connect_timeout=0.1)
    gone = await registry.register(record(name, "gone"), ttl=90)
    for id in ("a", "b"):
        await registry.register(record(name, id), ttl=1)
    async with watching.watch(name) as snapshots:
        await until(snapshots, fresh("a", "b", "gone"))
        await etcd_server.pause()
        await until(snapshots, lambda snapshot: snapshot.stale)
        await asyncio.sleep(2.5)  # two seconds are the shortest lease of an etcd
        await etcd_server.resume()
        seen: list[Snapshot] = []
        await until(snapshots, fresh("a", "b", "gone"), seen)
        await gone.aclose()
        await until(snapshots, fresh("a", "b"), seen)
    assert all(ids(snapshot) >= {"a", "b"} for snapshot in seen)


async def test_a_hung_server_is_found_out_and_found_again(
    open_registry: Any, record: Any, name: str, until: Any, etcd_server: EtcdServer
) -> None:
    registry = await open_registry(heartbeat=0.2, connect_timeout=0.5)
    await registry.register(record(name, "a"), ttl=90)
    async with registry.watch(name) as snapshots:
        await until(snapshots, fresh("a"))
        await etcd_server.pause()
        stale = await until(snapshots, lambda snapshot: snapshot.stale)
        assert ids(stale) == {"a"}
        await etcd_server.resume()
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


async def test_what_is_no_record_is_passed_over(
    open_registry: Any, etcd: Any, record: Any, name: str, until: Any
) -> None:
    registry = await open_registry()
    await registry.register(record(name, "a"), ttl=90)
    async with registry.watch(name) as snapshots:
        await until(snapshots, fresh("a"))
        for value in (
            b"",
            b"null",
            b"{",
            b"[]",
            b'{"name": 7}',
            b'{"name":"x","nodes":[null]}',
            b"\xff",
            b'{"nodes":[]}',
        ):
            await etcd.put(f"{name}/odd", value)
        await registry.register(record(name, "b"), ttl=90)
        seen: list[Snapshot] = []
        await until(snapshots, fresh("a", "b"), seen)
    assert [service.name for service in await registry.get_service(name)] == [name]
    await etcd.delete(f"{name}/odd")


async def test_names_with_slashes_are_told_from_those_with_dashes(
    open_registry: Any, etcd: Any, record: Any, name: str
) -> None:
    registry = await open_registry()
    for each in (f"{name}/x", f"{name}-x"):
        await registry.register(record(each, "a/b" if "/" in each else "c"), ttl=90)
    assert set(await etcd.keys(f"{name}-x")) == {f"{name}-x-a-b", f"{name}-x-c"}
    for each in (f"{name}/x", f"{name}-x"):
        (service,) = await registry.get_service(each)
        assert (service.name, len(service.nodes)) == (each, 1)
    assert {f"{name}/x", f"{name}-x"} <= set(await registry.list_services())


async def test_more_nodes_than_one_answer_holds(open_registry: Any, etcd: Any, name: str, until: Any) -> None:
    registry = await open_registry()
    text = '{"name":"%s","version":"1","nodes":[{"id":"%s-%d","address":"127.0.0.1:9000"}]}'
    count = 1201
    await asyncio.gather(*(etcd.put(f"{name}/{n}", (text % (name, name, n)).encode()) for n in range(count)))
    try:
        (service,) = await registry.get_service(name)
        assert len(service.nodes) == count
        async with registry.watch(name) as snapshots:
            await until(snapshots, lambda snapshot: len(ids(snapshot)) == count)
    finally:
        await asyncio.gather(*(etcd.delete(f"{name}/{n}") for n in range(count)))
