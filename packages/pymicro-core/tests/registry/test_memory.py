"""The in-memory registry: what is its own beyond the kit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from pymicro.errors import BackendUnavailable, ConfigurationError
from pymicro.plugins import Build
from pymicro.record import Node, ServiceRecord
from pymicro.registry import MemoryCatalog, MemoryRegistry, Registry, Snapshot
from pymicro_testing import ManualClock

TTL = 30.0


def record(*ids: str, name: str = "greeter", version: str = "1.0") -> ServiceRecord:
    return ServiceRecord(name, version, nodes=tuple(Node(id, f"10.0.0.1:{id}") for id in ids))


async def ids(registry: Registry, name: str = "greeter") -> set[str]:
    return {node.id for found in await registry.get_service(name) for node in found.nodes}


def ids_of(snapshot: Snapshot) -> set[str]:
    return {node.id for found in snapshot.services for node in found.nodes}


class Mesh:
    """Two processes, as it were: an owner and an observer on one catalog."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.catalog = MemoryCatalog()
        self.owner = self.make()
        self.observer = self.make()

    def make(self) -> MemoryRegistry:
        return MemoryRegistry(None, Build(clock=self.clock), catalog=self.catalog)


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    mesh = Mesh()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(mesh.owner)
        await stack.enter_async_context(mesh.observer)
        yield mesh


async def test_a_registry_has_a_catalog_of_its_own_by_default() -> None:
    async with MemoryRegistry() as one, MemoryRegistry() as other:
        await one.register(record("1"), ttl=TTL)
        assert await ids(one) == {"1"}
        assert await ids(other) == set()


async def test_an_owner_that_lives_is_renewed(mesh: Mesh) -> None:
    await mesh.owner.register(record("1"), ttl=TTL)
    await mesh.clock.advance(10 * TTL)
    assert await ids(mesh.observer) == {"1"}


async def test_what_a_crashed_owner_left_ends_with_its_ttl(mesh: Mesh) -> None:
    await mesh.owner.register(record("1"), ttl=TTL)
    mesh.owner.connected = False
    await mesh.owner.aclose()
    await mesh.clock.advance(TTL - 1)
    assert await ids(mesh.observer) == {"1"}
    await mesh.clock.advance(1)
    assert await ids(mesh.observer) == set()
    assert await mesh.observer.list_services() == []


async def test_watchers_hear_of_the_end_of_a_ttl(mesh: Mesh) -> None:
    await mesh.owner.register(record("1"), ttl=TTL)
    async with mesh.observer.watch("greeter") as snapshots:
        assert ids_of(await anext(snapshots)) == {"1"}
        mesh.owner.connected = False
        await mesh.clock.advance(TTL)
        last = await anext(snapshots)
        assert (ids_of(last), last.stale) == (set(), False)


async def test_watchers_hear_of_a_shorter_ttl_that_came_later(mesh: Mesh) -> None:
    async with mesh.observer.watch("greeter") as snapshots:
        await mesh.owner.register(record("long"), ttl=TTL)
        await mesh.owner.register(record("short"), ttl=3.0)
        assert ids_of(await anext(snapshots)) == {"long", "short"}
        mesh.owner.connected = False
        await mesh.clock.advance(3.0)
        assert ids_of(await anext(snapshots)) == {"long"}


async def test_a_ttl_of_zero_never_ends(mesh: Mesh) -> None:
    await mesh.owner.register(record("1"), ttl=0)
    mesh.owner.connected = False
    await mesh.owner.aclose()
    await mesh.clock.advance(1_000_000)
    assert await ids(mesh.observer) == {"1"}


async def test_an_owner_that_was_cut_off_registers_again(mesh: Mesh) -> None:
    registration = await mesh.owner.register(record("1"), ttl=TTL)
    mesh.owner.connected = False
    assert registration.state == "pending"
    assert isinstance(registration.error, BackendUnavailable)
    with pytest.raises(BackendUnavailable):
        await mesh.owner.get_service("greeter")
    await mesh.clock.advance(TTL)
    assert await ids(mesh.observer) == set()
    mesh.owner.connected = True
    assert (registration.state, registration.error) == ("registered", None)
    assert await ids(mesh.observer) == {"1"}


async def test_after_an_outage_longer_than_the_ttl_nobody_was_away(mesh: Mesh) -> None:
    await mesh.owner.register(record("1"), ttl=TTL)
    async with mesh.observer.watch("greeter") as snapshots:
        await anext(snapshots)
        mesh.catalog.available = False
        await mesh.clock.advance(3 * TTL)
        stale = await anext(snapshots)
        assert (ids_of(stale), stale.stale) == ({"1"}, True)
        mesh.catalog.available = True
        fresh = await anext(snapshots)
        assert (ids_of(fresh), fresh.stale, fresh.error) == ({"1"}, False, None)


async def test_an_owner_that_crashed_during_an_outage_is_gone_after_it(mesh: Mesh) -> None:
    await mesh.owner.register(record("1"), ttl=TTL)
    mesh.catalog.available = False
    await mesh.owner.aclose()
    await mesh.clock.advance(TTL)
    mesh.catalog.available = True
    assert await ids(mesh.observer) == set()


async def test_an_update_during_an_outage_arrives_after_it(mesh: Mesh) -> None:
    registration = await mesh.owner.register(record("1"), ttl=TTL)
    mesh.catalog.available = False
    await registration.update(ServiceRecord("greeter", "1.0", {"color": "blue"}, nodes=record("1").nodes))
    assert registration.state == "pending"
    mesh.catalog.available = True
    (found,) = await mesh.observer.get_service("greeter")
    assert found.metadata == {"color": "blue"}


async def test_what_was_forgotten_is_back_at_the_next_renewal(mesh: Mesh) -> None:
    await mesh.owner.register(record("1"), ttl=TTL)
    mesh.catalog.forget()
    assert await ids(mesh.observer) == set()
    await mesh.clock.advance(TTL / 3)
    assert await ids(mesh.observer) == {"1"}


async def test_records_are_copied_both_ways(mesh: Mesh) -> None:
    given = ServiceRecord("greeter", metadata={"color": "red"}, nodes=(Node("1", "a:1", {"zone": "a"}),))
    await mesh.owner.register(given, ttl=TTL)
    given.metadata["color"] = "blue"
    (found,) = await mesh.observer.get_service("greeter")
    found.nodes[0].metadata["zone"] = "b"
    (again,) = await mesh.observer.get_service("greeter")
    assert again.metadata == {"color": "red"}
    assert again.nodes[0].metadata == {"zone": "a"}


async def test_closing_one_of_two_registrations_of_a_node_keeps_it(mesh: Mesh) -> None:
    first = await mesh.owner.register(record("1"), ttl=TTL)
    await mesh.observer.register(record("1"), ttl=TTL)
    await first.aclose()
    assert await ids(mesh.observer) == {"1"}


async def test_a_record_without_nodes_is_refused(mesh: Mesh) -> None:
    with pytest.raises(ConfigurationError, match="has no nodes"):
        await mesh.owner.register(record(), ttl=TTL)


async def test_no_timer_is_left(mesh: Mesh) -> None:
    async with mesh.observer.watch("greeter") as snapshots:
        await mesh.owner.register(record("1"), ttl=TTL)
        await anext(snapshots)
    await mesh.owner.aclose()
    await mesh.observer.aclose()
    assert mesh.clock.pending == 0
