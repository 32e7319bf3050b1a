"""What the cases for registries share, and those about opening, closing and outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import ClassVar, Final

import pytest

from pymicro.errors import BackendUnavailable, Closed
from pymicro.record import Node, ServiceRecord
from pymicro.registry import Registration, Registry, Snapshot
from pymicro_testing._conformance import Conformance
from pymicro_testing._guard import since
from pymicro_testing.faults import Outage

TTL: Final = 30.0


class RegistryLife(Conformance[Registry]):
    """Cases about opening, closing and outages; see `RegistryConformance`."""

    address: ClassVar[str] = "127.0.0.1:{}"
    shortest_ttl: ClassVar[float] = 1.0

    async def crash(self, registry: Registry) -> None:
        """Make `registry` stop without a word, as when its process is killed. Cases that need it are skipped."""
        pytest.skip("crash(registry) is not declared")

    def record(self, name: str, *ports: int, version: str = "1.0.0", **metadata: str) -> ServiceRecord:
        """A record with one node for each port; one at port 9000 when none is given."""
        nodes = tuple(Node(f"{name}-{port}", self.address.format(port)) for port in ports or (9000,))
        return ServiceRecord(name, version, metadata, nodes=nodes)

    # Life cycle

    @since("0.1")
    async def test_before_opening_everything_is_refused(self) -> None:
        await self.refuses_use(self.make(self.build()))

    @since("0.1")
    async def test_after_closing_everything_is_refused(self) -> None:
        async with self.opened() as registry:
            await registry.aclose()
            await registry.aclose()
            await self.refuses_use(registry)

    @since("0.1")
    async def test_closing_before_opening_is_harmless(self) -> None:
        registry = self.make(self.build())
        await registry.aclose()
        await registry.aclose()
        await self.refused(registry.__aenter__(), Closed)

    @since("0.1")
    async def test_closing_the_registry_closes_its_registrations(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            registration = await registry.register(self.record(name), ttl=TTL)
            await self.until_ports(other, name, {9000})
            await self.within(registry.aclose())
            assert registration.state == "closed"
            await self.until_ports(other, name, set())
            await registration.aclose()

    @since("0.1")
    async def test_closing_one_instance_leaves_the_other_alone(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            registration = await other.register(self.record(name), ttl=TTL)
            async with other.watch(name) as snapshots:
                await self.until(snapshots, lambda snapshot: ports_of(snapshot.services) == {9000})
                await registry.aclose()
                assert registration.state == "registered"
                await registration.update(self.record(name, still="here"))
                await self.until(snapshots, lambda snapshot: values_of(snapshot, "still") == {"here"})

    @since("0.1")
    async def test_calls_may_run_at_once_and_be_cancelled(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            await registry.register(self.record(name), ttl=TTL)
            await self.until_ports(other, name, {9000})
            calls = [asyncio.create_task(_found(other, name)) for _ in range(20)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                await self.cancelled(call)
            await self.within(asyncio.gather(*calls[1::2]))
            assert ports_of(await other.get_service(name)) == {9000}

    # Leases

    @since("0.1")
    async def test_a_registration_outlives_its_ttl(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            registration = await registry.register(self.record(name), ttl=self.shortest_ttl)
            await self.pass_time(1.5 * self.shortest_ttl)
            assert registration.state == "registered"
            await self.until_ports(other, name, {9000})

    @since("0.1")
    async def test_a_ttl_of_zero_never_ends(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            await registry.register(self.record(name), ttl=0)
            await self.pass_time(1.5 * self.shortest_ttl)
            await self.until_ports(other, name, {9000})

    @since("0.1")
    async def test_a_crashed_process_is_forgotten_after_its_ttl(self) -> None:
        async with self.pair() as (registry, other):
            name = self.unique("greeter")
            await registry.register(self.record(name, 9001), ttl=self.shortest_ttl)
            await other.register(self.record(name, 9002), ttl=self.shortest_ttl)
            await self.until_ports(other, name, {9001, 9002})
            async with other.watch(name) as snapshots:
                await self.until(snapshots, lambda snapshot: ports_of(snapshot.services) == {9001, 9002})
                await self.crash(registry)
                await self.pass_time(self.shortest_ttl)
                await self.until_ports(other, name, {9002})
                await self.until(snapshots, lambda snapshot: ports_of(snapshot.services) == {9002})

    # Outages

    @since("0.1")
    async def test_an_outage_makes_a_watch_stale_and_keeps_its_state(self) -> None:
        async with self.outage(Outage.STOP) as server, self.pair() as (registry, other):
            name = self.unique("greeter")
            await registry.register(self.record(name), ttl=TTL)
            async with other.watch(name) as snapshots:
                await self.until(snapshots, lambda snapshot: ports_of(snapshot.services) == {9000})
                await server.stop()
                stale = await self.until(snapshots, lambda snapshot: snapshot.stale)
                assert isinstance(stale.error, BackendUnavailable)
                assert ports_of(stale.services) == {9000}
                await server.start()
                fresh = await self.until(snapshots, lambda snapshot: not snapshot.stale and bool(snapshot.services))
                assert (fresh.error, ports_of(fresh.services)) == (None, {9000})

    @since("0.1")
    async def test_during_an_outage_nobody_knows(self) -> None:
        async with self.outage(Outage.STOP) as server, self.opened() as registry:
            await server.stop()
            await self.refused(registry.get_service(self.unique("greeter")), BackendUnavailable)
            await self.refused(registry.list_services(), BackendUnavailable)
            await server.start()
            name = self.unique("greeter")
            await registry.register(self.record(name), ttl=TTL)
            await self.until_ports(registry, name, {9000})

    @since("0.1")
    async def test_a_hanging_server_is_given_up(self) -> None:
        async with self.outage(Outage.PAUSE) as server, self.opened() as registry:
            await server.pause()
            await self.refused(registry.get_service(self.unique("greeter")), BackendUnavailable)

    @since("0.1")
    async def test_registering_during_an_outage_is_pending(self) -> None:
        async with self.outage(Outage.STOP) as server, self.pair() as (registry, other):
            name = self.unique("greeter")
            await server.stop()
            registration = await self.within(registry.register(self.record(name), ttl=TTL))
            assert registration.state == "pending"
            assert isinstance(registration.error, BackendUnavailable)
            await server.start()
            await self.until_registered(registration)
            await self.until_ports(other, name, {9000})

    @since("0.1")
    async def test_what_the_server_forgot_is_registered_again(self) -> None:
        async with self.outage(Outage.FORGET) as server, self.pair() as (registry, other):
            name = self.unique("greeter")
            registration = await registry.register(self.record(name), ttl=self.shortest_ttl)
            await server.forget()
            await self.until_ports(other, name, {9000})
            await self.until_registered(registration)

    @since("0.1")
    async def test_closing_without_a_server_is_bounded(self) -> None:
        async with self.outage(Outage.STOP) as server, self.opened() as registry:
            registration = await registry.register(self.record(self.unique("greeter")), ttl=TTL)
            await server.stop()
            await self.within(registration.aclose())
            await self.within(registry.aclose())

    @since("0.1")
    async def test_closing_before_a_hanging_server_is_bounded(self) -> None:
        async with self.outage(Outage.PAUSE) as server, self.opened() as registry:
            registration = await registry.register(self.record(self.unique("greeter")), ttl=TTL)
            await server.pause()
            await self.within(registration.aclose())
            await self.within(registry.aclose())

    async def until(
        self,
        snapshots: AsyncIterator[Snapshot],
        fits: Callable[[Snapshot], bool],
        seen: list[Snapshot] | None = None,
    ) -> Snapshot:
        """See the function `until`; fails after `patience`."""
        return await until(snapshots, fits, seen, within=self.patience)

    async def until_ports(self, registry: Registry, name: str, ports: set[int]) -> None:
        """Wait until `registry` finds exactly the nodes with these ports."""

        async def found() -> bool:
            try:
                return ports_of(await registry.get_service(name)) == ports
            except BackendUnavailable:
                return False

        await self.eventually(found, f"{name} has nodes at {sorted(ports)}")

    async def until_registered(self, registration: Registration) -> None:
        """Wait until peers can find it again."""

        async def registered() -> bool:
            return registration.state == "registered"

        await self.eventually(registered, "the registration is registered")
        assert registration.error is None

    async def refuses_use(self, registry: Registry) -> None:
        """Every method of a registry that is not open raises `Closed`."""
        await self.refused(registry.register(self.record(self.unique("greeter")), ttl=TTL), Closed)
        await self.refused(registry.get_service("greeter"), Closed)
        await self.refused(registry.list_services(), Closed)
        with pytest.raises(Closed):
            async with registry.watch("greeter") as snapshots:
                await self.within(anext(snapshots))


async def until(
    snapshots: AsyncIterator[Snapshot],
    fits: Callable[[Snapshot], bool],
    seen: list[Snapshot] | None = None,
    *,
    within: float,
) -> Snapshot:
    """The first snapshot of a watch that fits; those up to it are appended to `seen`. Fails after `within` seconds."""
    snapshot = None
    end = asyncio.get_running_loop().time() + within
    timeout = asyncio.timeout(within)
    try:
        async with timeout:
            async for snapshot in snapshots:
                if seen is not None:
                    seen.append(snapshot)
                if fits(snapshot):
                    return snapshot
                if asyncio.get_running_loop().time() >= end:  # they come without a pause
                    break
    except TimeoutError:
        if not timeout.expired():
            raise
    raise AssertionError(f"no snapshot fits, within {within:g} seconds; the last one is {snapshot!r}")


def ports_of(services: Sequence[ServiceRecord]) -> set[int]:
    return {int(node.address.rpartition(":")[2]) for record in services for node in record.nodes}


def names_of(snapshot: Snapshot) -> set[str]:
    return {record.name for record in snapshot.services if record.nodes}


def values_of(snapshot: Snapshot, key: str) -> set[str | None]:
    return {record.metadata.get(key) for record in snapshot.services}


async def drain(snapshots: AsyncIterator[Snapshot]) -> None:
    async for _ in snapshots:
        pass


async def _found(registry: Registry, name: str) -> set[int]:
    return ports_of(await registry.get_service(name))
