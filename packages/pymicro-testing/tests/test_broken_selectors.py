"""Selectors that break one promise each; a case that is named must find it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, ClassVar

import pytest

from pymicro.errors import NoNode
from pymicro.plugins import Build
from pymicro.record import Node
from pymicro.selector import Filter, Outcome, Pick, RegistrySelector, Selector, Strategy
from pymicro_testing import SelectorConformance

CaseFails = Callable[[object, str], Awaitable[None]]


class Changed(RegistrySelector):
    """Sound; broken ones change what it was asked for, or what it says."""

    def __init__(self, build: Build) -> None:
        super().__init__(None, build)

    def asked(self, options: dict[str, Any]) -> dict[str, Any]:
        return options

    async def pick(
        self,
        service: str,
        *,
        filters: Sequence[Filter] = (),
        strategy: str | Strategy | None = None,
        exclude: Collection[str] = (),
        key: str | None = None,
    ) -> Pick:
        options = {"filters": filters, "strategy": strategy, "exclude": exclude, "key": key}
        return await super().pick(service, **self.asked(options))


class IgnoresFilters(Changed):
    def asked(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"filters": ()}


class IgnoresExclude(Changed):
    def asked(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"exclude": ()}


class AlwaysTheFirst(Changed):
    def asked(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"strategy": options["strategy"] or (lambda candidates, key: candidates[0])}


class _Deaf(Pick):
    def done(self, outcome: Outcome, seconds: float = 0.0, error: BaseException | None = None) -> None:
        pass


class LearnsNothing(Changed):
    async def pick(self, service: str, **options: Any) -> Pick:
        pick = await super().pick(service, **options)
        return _Deaf(pick.node, pick.service)


class NeverForgives(Changed):
    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.failed: set[str] = set()

    async def pick(self, service: str, **options: Any) -> Pick:
        try:
            pick = await super().pick(service, **options | {"exclude": {*options.get("exclude", ()), *self.failed}})
        except NoNode:
            pick = await super().pick(service, **options)
        return _Grudge(pick.node, pick.service, failed=self.failed)


class _Grudge(Pick, kw_only=True):
    failed: set[str]

    def done(self, outcome: Outcome, seconds: float = 0.0, error: BaseException | None = None) -> None:
        if outcome in (Outcome.UNREACHABLE, Outcome.BROKEN):
            self.failed.add(self.node.id)


class SharesState(NeverForgives):
    everybody: ClassVar[set[str]] = set()

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.failed = self.everybody


class Waits(Changed):
    async def pick(self, service: str, **options: Any) -> Pick:
        await asyncio.sleep(0)
        return await super().pick(service, **options)


class IgnoresClose(Changed):
    async def _close(self) -> None:
        await asyncio.sleep(0)


class TellsNobody(Changed):
    def on_removed(self, callback: Callable[[Node], None]) -> Callable[[], None]:
        return lambda: None


class LeavesTimers(Changed):
    async def _open(self) -> None:
        self._clock.call_later(3600.0, print)
        await super()._open()


class Suite(SelectorConformance):
    """The cases on a broken selector."""

    patience = 0.3
    quiet = 0.02

    def __init__(self, broken: type[Changed]) -> None:
        self.broken = broken

    def make(self, build: Build) -> Selector:
        return self.broken(build)


class Patient(Suite):
    """For sound ones, which may be slow on a busy machine."""

    patience = 5.0


BROKEN: list[tuple[type[Changed], str]] = [
    (IgnoresFilters, "test_filters_decide"),
    (IgnoresExclude, "test_excluded_nodes_are_not_picked"),
    (AlwaysTheFirst, "test_every_node_is_used"),
    (LearnsNothing, "test_a_node_that_fails_is_left_out"),
    (NeverForgives, "test_a_node_that_failed_is_tried_again"),
    (NeverForgives, "test_a_failure_is_counted_once"),
    (SharesState, "test_two_selectors_learn_for_themselves"),
    (Waits, "test_a_known_service_is_picked_without_waiting"),
    (IgnoresClose, "test_a_closed_selector_picks_nothing_it_knew"),
    (TellsNobody, "test_a_node_that_is_gone_is_told"),
    (LeavesTimers, "test_the_only_node_is_picked"),
]


@pytest.mark.parametrize(("broken", "case"), BROKEN)
@pytest.mark.usefixtures("rubbish_removed")
async def test_the_named_case_finds_it(broken: type[Changed], case: str, case_fails: CaseFails) -> None:
    SharesState.everybody.clear()
    await case_fails(Suite(broken), case)


@pytest.mark.parametrize("case", sorted({case for _, case in BROKEN}))
async def test_the_same_case_passes_a_sound_one(case: str) -> None:
    await getattr(Patient(Changed), case)()
