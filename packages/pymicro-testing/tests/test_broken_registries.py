"""Registries that break one promise each; a case that is named must find it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from pymicro.errors import BackendUnavailable
from pymicro.plugins import Build
from pymicro.record import ServiceRecord
from pymicro.registry import MemoryCatalog, MemoryRegistry, Registration, Registry, Snapshot
from pymicro_testing import ManualClock, Outage, RegistryConformance, Server

CaseFails = Callable[[object, str], Awaitable[None]]


class Loses(MemoryRegistry):
    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        port = int(service.nodes[0].address.rpartition(":")[2])
        if port % 7 == 0:
            return await super().register(ServiceRecord("elsewhere", nodes=service.nodes), ttl=ttl)
        return await super().register(service, ttl=ttl)


class Reorders(MemoryRegistry):
    async def list_services(self) -> Sequence[str]:
        return [*reversed(await super().list_services())]


class Duplicates(MemoryRegistry):
    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        return [*await super().get_service(name)] * 2


class SharesState(MemoryRegistry):
    everything: ClassVar[list[Registration]] = []

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        self.everything.append(await super().register(service, ttl=ttl))
        return self.everything[-1]

    async def _close(self) -> None:
        for registration in self.everything:
            await registration.aclose()
        self.everything.clear()
        await super()._close()


class IgnoresClose(MemoryRegistry):
    async def _close(self) -> None:
        await asyncio.sleep(0)


class IgnoresCancellation(MemoryRegistry):
    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        waiting = asyncio.ensure_future(asyncio.sleep(0.6))
        while not waiting.done():
            try:
                await asyncio.wait({waiting})
            except asyncio.CancelledError:
                continue
        return await super().get_service(name)


class ReplacesAnything(MemoryRegistry):
    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        registration = await super().register(service, ttl=ttl)

        async def update(changed: ServiceRecord) -> None:
            await registration.aclose()
            await super(ReplacesAnything, self).register(changed, ttl=ttl)

        registration.update = update
        return registration


class FindsPrefixes(MemoryRegistry):
    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        names = [each for each in await self.list_services() if each.startswith(name)]
        return [record for each in names for record in await super(FindsPrefixes, self).get_service(each)]


class DropsMetadata(MemoryRegistry):
    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        return [
            ServiceRecord(record.name, record.version, nodes=record.nodes) for record in await super().get_service(name)
        ]


class KnowsNothingInAnOutage(MemoryRegistry):
    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        try:
            return await super().get_service(name)
        except BackendUnavailable:
            return []


class RaisesForeignErrors(MemoryRegistry):
    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        try:
            return await super().get_service(name)
        except BackendUnavailable as error:
            raise OSError("unreachable") from error


class BeginsEmpty(MemoryRegistry):
    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        async def late(snapshots: AsyncIterator[Snapshot]) -> AsyncIterator[Snapshot]:
            yield Snapshot()
            async for snapshot in snapshots:
                yield snapshot

        async with super().watch(name) as snapshots:
            yield late(snapshots)


class KeepsEverySnapshot(MemoryRegistry):
    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        kept: asyncio.Queue[Snapshot] = asyncio.Queue()

        async def collect(snapshots: AsyncIterator[Snapshot]) -> None:
            async for snapshot in snapshots:
                kept.put_nowait(snapshot)

        async def one_by_one() -> AsyncIterator[Snapshot]:
            while True:
                yield await kept.get()

        async with super().watch(name) as snapshots:
            task = asyncio.create_task(collect(snapshots))
            try:
                yield one_by_one()
            finally:
                task.cancel()
                await asyncio.wait({task})


class HidesOutages(MemoryRegistry):
    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        async def rosy(snapshots: AsyncIterator[Snapshot]) -> AsyncIterator[Snapshot]:
            async for snapshot in snapshots:
                if not snapshot.stale:
                    yield snapshot

        async with super().watch(name) as snapshots:
            yield rosy(snapshots)


class NeverRenews(MemoryRegistry):
    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        registration = await super().register(service, ttl=ttl)
        registration._timer.cancel()  # type: ignore[attr-defined]  # what renews it
        return registration


class _Catalog(Server):
    outages = frozenset({Outage.STOP, Outage.FORGET})

    def __init__(self, catalog: MemoryCatalog) -> None:
        self._catalog = catalog

    async def start(self) -> None:
        self._catalog.available = True

    async def stop(self) -> None:
        self._catalog.available = False

    async def forget(self) -> None:
        self._catalog.forget()


class Suite(RegistryConformance):
    """The cases on a broken registry."""

    patience = 0.3
    quiet = 0.02

    def __init__(self, broken: type[MemoryRegistry]) -> None:
        self.broken = broken
        self.catalog = MemoryCatalog()
        self.server = _Catalog(self.catalog)
        self.clock = ManualClock()

    def make(self, build: Build) -> Registry:
        return self.broken(None, build, catalog=self.catalog)


class Patient(Suite):
    """For sound ones, which may be slow on a busy machine."""

    patience = 5.0


BROKEN: list[tuple[type[MemoryRegistry], str]] = [
    (Loses, "test_many_nodes_are_one_record"),
    (Reorders, "test_services_are_listed_sorted"),
    (Duplicates, "test_many_nodes_are_one_record"),
    (SharesState, "test_closing_one_instance_leaves_the_other_alone"),
    (IgnoresClose, "test_closing_the_registry_closes_its_registrations"),
    (IgnoresClose, "test_a_watch_ends_with_its_registry"),
    (IgnoresCancellation, "test_calls_may_run_at_once_and_be_cancelled"),
    (ReplacesAnything, "test_an_update_to_another_service_or_node_is_refused"),
    (FindsPrefixes, "test_a_name_is_no_prefix"),
    (DropsMetadata, "test_a_record_survives_whole"),
    (KnowsNothingInAnOutage, "test_during_an_outage_nobody_knows"),
    (RaisesForeignErrors, "test_during_an_outage_nobody_knows"),
    (BeginsEmpty, "test_a_watch_begins_with_the_full_state"),
    (KeepsEverySnapshot, "test_a_slow_watcher_gets_the_newest_state"),
    (HidesOutages, "test_an_outage_makes_a_watch_stale_and_keeps_its_state"),
    (NeverRenews, "test_a_registration_outlives_its_ttl"),
    (NeverRenews, "test_what_the_server_forgot_is_registered_again"),
]


@pytest.mark.parametrize(("broken", "case"), BROKEN)
@pytest.mark.usefixtures("rubbish_removed")
async def test_the_named_case_finds_it(broken: type[MemoryRegistry], case: str, case_fails: CaseFails) -> None:
    await case_fails(Suite(broken), case)


@pytest.mark.parametrize("case", sorted({case for _, case in BROKEN}))
async def test_the_same_case_passes_a_sound_one(case: str) -> None:
    await getattr(Patient(MemoryRegistry), case)()
