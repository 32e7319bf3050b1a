"""What every registry must do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec

from pymicro.errors import BackendRefused, Closed, ConfigurationError, UsageError
from pymicro.record import Endpoint, Node, ServiceRecord, Value
from pymicro.registry import Snapshot
from pymicro_testing._guard import since
from pymicro_testing._registry_life import TTL, RegistryLife, drain, names_of, ports_of, until, values_of
from pymicro_testing.clock import settle

__all__ = ["RegistryConformance", "until"]

_REQUEST: Final = Value("HelloRequest", "HelloRequest", (Value("name", "string"), Value("tags", "[]string")))
_ENDPOINTS: Final = (
    Endpoint("Greeter.Hello", _REQUEST, Value("HelloResponse", "HelloResponse", (Value("greeting", "string"),))),
    Endpoint("Greeter.Count", metadata={"stream": "true"}),
)
_METADATA: Final = {"region": "eu-west", "weird key": "a=b;c,d \"e\" 'f' \\ /", "grüße": "日本 ✓", "empty": ""}


class RegistryConformance(RegistryLife):
    """The cases for registries.

    Define `make`. Attributes beyond those of `Conformance`:
        many_nodes: how many nodes the case about many nodes registers.
        address: the form of a node's address; `{}` becomes a port.
        shortest_ttl: seconds; a TTL that this registry keeps to.
        names: endings of service names that are not plain; each must work or be refused with `ConfigurationError` or
            `BackendRefused`.
    The method `crash` stops a registry as if its process were killed; without it, that case is skipped.
    """

    many_nodes: ClassVar[int] = 20
    names: ClassVar[Sequence[str]] = (
        ".v1.api",
        "_under-dash",
        " with space",
        "/slash",
        "Größe",
        "日本",
        "*",
        "%2F",
        "x" * 40,
    )

    # What is registered

    @since("0.1")
    async def test_what_one_registers_the_other_finds(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            registration = await registry.register(self.record(name), ttl=TTL)
            assert registration.state == "registered"
            assert registration.error is None
            await self.until_ports(other, name, {9000})
            await self.until_ports(registry, name, {9000})

    @since("0.1")
    async def test_a_record_survives_whole(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            node = Node(f"{name}-1", self.address.format(9000), {"protocol": "mucp", **_METADATA})
            sent = ServiceRecord(name, "1.2.3-rc.1+build", {"type": "helloworld", **_METADATA}, _ENDPOINTS, (node,))
            await registry.register(sent, ttl=TTL)
            await self.until_ports(other, name, {9000})
            (found,) = await other.get_service(name)
            assert (found.name, found.version) == (sent.name, sent.version)
            assert found.metadata.items() >= sent.metadata.items()
            assert sorted(found.endpoints, key=lambda endpoint: endpoint.name) == sorted(
                sent.endpoints, key=lambda endpoint: endpoint.name
            )
            (found_node,) = found.nodes
            assert (found_node.id, found_node.address) == (node.id, node.address)
            assert found_node.metadata.items() >= node.metadata.items()

    @since("0.1")
    async def test_a_bare_record_survives(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("bare")
            await registry.register(self.record(name), ttl=TTL)
            await self.until_ports(other, name, {9000})
            (found,) = await other.get_service(name)
            assert found.endpoints == ()

    @since("0.1")
    async def test_a_large_record_survives_or_is_refused(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("large")
            endpoints = tuple(msgspec.structs.replace(_ENDPOINTS[0], name=f"Greeter.Method{i}") for i in range(100))
            record = msgspec.structs.replace(self.record(name), endpoints=endpoints)
            try:
                await registry.register(record, ttl=TTL)
            except (ConfigurationError, BackendRefused):
                return
            await self.until_ports(other, name, {9000})
            (found,) = await other.get_service(name)
            assert {endpoint.name for endpoint in found.endpoints} == {endpoint.name for endpoint in endpoints}

    @since("0.1")
    async def test_unknown_services_are_empty(self) -> None:
        async with self.opened() as registry:
            assert not await self.within(registry.get_service(self.unique("nobody")))

    @since("0.1")
    async def test_services_are_listed_sorted(self) -> None:
        async with self.pair() as (registry, other):
            names = sorted(self.unique(name) for name in ("beta", "alpha", "gamma"))
            for name in reversed(names):
                await registry.register(self.record(name), ttl=TTL)

            async def listed() -> bool:
                return set(names) <= set(await other.list_services())

            await self.eventually(listed, "all services are listed")
            everything = list(await other.list_services())
            assert everything == sorted(set(everything))

    @since("0.1")
    async def test_versions_stay_apart(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            await registry.register(self.record(name, 9001, version="1.0.0", stage="old"), ttl=TTL)
            await other.register(self.record(name, 9002, version="2.0.0", stage="new"), ttl=TTL)
            await self.until_ports(registry, name, {9001, 9002})
            found = {record.version: record for record in await registry.get_service(name)}
            assert {version: ports_of([record]) for version, record in found.items()} == {
                "1.0.0": {9001},
                "2.0.0": {9002},
            }
            assert {record.metadata["stage"] for record in found.values()} == {"old", "new"}

    @since("0.1")
    async def test_many_nodes_are_one_record(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("many")
            ports = range(9000, 9000 + self.many_nodes)
            for port in ports:
                await (registry, other)[port % 2].register(self.record(name, port), ttl=TTL)
            await self.until_ports(other, name, set(ports))
            assert len(await other.get_service(name)) == 1

    @since("0.1")
    async def test_one_registration_may_have_several_nodes(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("several")
            registration = await registry.register(self.record(name, 9001, 9002, 9003), ttl=TTL)
            await self.until_ports(other, name, {9001, 9002, 9003})
            await registration.aclose()
            await self.until_ports(other, name, set())

    @since("0.1")
    async def test_a_name_is_no_prefix(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            await registry.register(self.record(f"{name}-two", 9002), ttl=TTL)
            await registry.register(self.record(name, 9001), ttl=TTL)
            await self.until_ports(other, f"{name}-two", {9002})
            await self.until_ports(other, name, {9001})
            assert not await other.get_service(name[:-1])

    @since("0.1")
    async def test_awkward_names_work_or_are_refused(self) -> None:
        async with self.pair() as (registry, other):
            held: list[str] = []
            for name in (self.unique("svc") + ending for ending in self.names):
                try:
                    await registry.register(self.record(name), ttl=TTL)
                except (ConfigurationError, BackendRefused):
                    continue
                held.append(name)
            for name in held:
                await self.until_ports(other, name, {9000})
            assert set(held) <= set(await other.list_services())

    # Changes

    @since("0.1")
    async def test_an_update_replaces_without_a_gap(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            registration = await registry.register(self.record(name, weight="1"), ttl=TTL)
            async with other.watch(name) as snapshots:
                await self.until(snapshots, lambda snapshot: ports_of(snapshot.services) == {9000})
                await registration.update(self.record(name, weight="2"))
                seen: list[Snapshot] = []
                await self.until(snapshots, lambda snapshot: values_of(snapshot, "weight") == {"2"}, seen)
                assert all(ports_of(snapshot.services) == {9000} for snapshot in seen), "the node was away for a moment"
            assert registration.state == "registered"
            (found,) = await other.get_service(name)
            assert found.metadata["weight"] == "2"

    @since("0.1")
    async def test_an_update_to_another_service_or_node_is_refused(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            record = self.record(name)
            registration = await registry.register(record, ttl=TTL)
            (node,) = record.nodes
            new_node = msgspec.structs.replace(node, id=f"{node.id}-new")
            for change in ({"name": f"{name}-new"}, {"version": "new"}, {"nodes": (new_node,)}):
                changed = msgspec.structs.replace(record, **change)
                await self.refused(registration.update(changed), UsageError)
            assert registration.state == "registered"
            await self.until_ports(other, name, {9000})
            (found,) = await other.get_service(name)
            assert (found.version, [each.id for each in found.nodes]) == (record.version, [node.id])
            assert not await other.get_service(f"{name}-new")

    @since("0.1")
    async def test_closing_a_registration_deregisters(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            first = await registry.register(self.record(name, 9001), ttl=TTL)
            second = await registry.register(self.record(name, 9002), ttl=TTL)
            await self.until_ports(other, name, {9001, 9002})
            await first.aclose()
            assert (first.state, second.state) == ("closed", "registered")
            await self.until_ports(other, name, {9002})
            await second.aclose()
            await self.until_ports(other, name, set())
            assert name not in await other.list_services()

    @since("0.1")
    async def test_a_registration_closes_twice(self) -> None:
        async with self.opened() as registry:
            registration = await registry.register(self.record(self.unique("greeter")), ttl=TTL)
            await asyncio.gather(registration.aclose(), registration.aclose())
            await registration.aclose()
            assert registration.state == "closed"

    @since("0.1")
    async def test_a_closed_registration_cannot_be_updated(self) -> None:
        async with self.opened() as registry:
            record = self.record(self.unique("greeter"))
            registration = await registry.register(record, ttl=TTL)
            await registration.aclose()
            await self.refused(registration.update(record), Closed)
            assert not await registry.get_service(record.name)

    @since("0.1")
    async def test_a_service_can_come_back(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            for port in (9001, 9002, 9001):
                registration = await registry.register(self.record(name, port), ttl=TTL)
                await self.until_ports(other, name, {port})
                await registration.aclose()
                await self.until_ports(other, name, set())

    @since("0.1")
    async def test_a_cancelled_register_leaves_nothing_behind(self) -> None:
        async with self.pair() as (registry, other):
            async with self.make(self.build()) as third:
                name = self.unique("cancelled")
                for port in range(9000, 9010):
                    task = asyncio.create_task(third.register(self.record(name, port), ttl=TTL))
                    for _ in range(port - 9000):
                        await asyncio.sleep(0)
                    await self.cancelled(task)
                await registry.register(self.record(name, 9100), ttl=TTL)
            await self.until_ports(other, name, {9100})

    # Watching

    @since("0.1")
    async def test_a_watch_begins_with_the_full_state(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            await registry.register(self.record(name, 9001, 9002), ttl=TTL)
            await self.until_ports(other, name, {9001, 9002})
            async with other.watch(name) as snapshots:
                first = await self.within(anext(snapshots))
                assert ports_of(first.services) == {9001, 9002}
                assert not first.stale
                assert first.error is None

    @since("0.1")
    async def test_a_watch_of_nothing_begins_empty(self) -> None:
        async with self.opened() as registry, registry.watch(self.unique("nobody")) as snapshots:
            first = await self.within(anext(snapshots))
            assert (first.services, first.stale) == ((), False)

    @since("0.1")
    async def test_a_watch_sees_nodes_come_change_and_go(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            async with other.watch(name) as snapshots:
                await self.within(anext(snapshots))
                one = await registry.register(self.record(name, 9001), ttl=TTL)
                await self.until(snapshots, lambda snapshot: ports_of(snapshot.services) == {9001})
                two = await registry.register(self.record(name, 9002), ttl=TTL)
                await self.until(snapshots, lambda snapshot: ports_of(snapshot.services) == {9001, 9002})
                await one.aclose()
                await self.until(snapshots, lambda snapshot: ports_of(snapshot.services) == {9002})
                await two.update(self.record(name, 9002, weight="7"))
                await self.until(snapshots, lambda snapshot: values_of(snapshot, "weight") == {"7"})
                await two.aclose()
                await self.until(snapshots, lambda snapshot: snapshot.services == () or not ports_of(snapshot.services))

    @since("0.1")
    async def test_a_watch_of_one_service_keeps_to_it(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            async with other.watch(name) as snapshots:
                await self.within(anext(snapshots))
                await registry.register(self.record(f"{name}-other", 9001), ttl=TTL)
                await registry.register(self.record(name, 9002), ttl=TTL)
                seen: list[Snapshot] = []
                await self.until(snapshots, lambda snapshot: bool(snapshot.services), seen)
                assert {record.name for snapshot in seen for record in snapshot.services} == {name}

    @since("0.1")
    async def test_a_watch_of_all_sees_all(self) -> None:
        async with self.pair() as (registry, other):
            here, there = self.unique("here"), self.unique("there")
            first = await registry.register(self.record(here, 9001), ttl=TTL)
            await self.until_ports(other, here, {9001})
            async with other.watch() as snapshots:
                await self.until(snapshots, lambda snapshot: here in names_of(snapshot))
                await registry.register(self.record(there, 9002), ttl=TTL)
                await self.until(snapshots, lambda snapshot: {here, there} <= names_of(snapshot))
                await first.aclose()
                await self.until(
                    snapshots, lambda snapshot: here not in names_of(snapshot) and there in names_of(snapshot)
                )

    @since("0.1")
    async def test_a_slow_watcher_gets_the_newest_state(self) -> None:
        changes = 40
        async with self.pair() as (registry, other):
            name = self.unique("busy")
            registration = await registry.register(self.record(name, turn="0"), ttl=TTL)
            async with other.watch(name) as snapshots:
                await self.until(snapshots, lambda snapshot: values_of(snapshot, "turn") == {"0"})
                for turn in range(1, changes + 1):
                    await registration.update(self.record(name, turn=str(turn)))
                    await settle()

                async def arrived() -> bool:
                    return {record.metadata["turn"] for record in await other.get_service(name)} == {str(changes)}

                await self.eventually(arrived, "the last update is found")
                await self.pass_time(self.quiet)
                seen: list[Snapshot] = []
                await self.until(snapshots, lambda snapshot: values_of(snapshot, "turn") == {str(changes)}, seen)
                assert len(seen) <= 3, f"{len(seen)} snapshots were kept for a watcher that was not looking"

    @since("0.1")
    async def test_watches_do_not_disturb_each_other(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            async with other.watch(name) as staying:
                async with other.watch(name) as leaving:
                    await self.within(anext(leaving))
                    waiting = asyncio.ensure_future(anext(leaving))
                    await asyncio.sleep(0)
                    await self.cancelled(waiting)
                await registry.register(self.record(name), ttl=TTL)
                await self.until(staying, lambda snapshot: ports_of(snapshot.services) == {9000})

    @since("0.1")
    async def test_a_watch_ends_with_its_registry(self) -> None:
        async with self.pair() as (_, other), other.watch(self.unique("greeter")) as snapshots:
            await self.within(anext(snapshots))
            waiting = asyncio.create_task(drain(snapshots))
            await self.stays_waiting(waiting, "nothing changed")
            await other.aclose()
            await self.within(waiting)
