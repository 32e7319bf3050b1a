"""What every selector must do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

import msgspec
import pytest

from pymicro.errors import Closed, DialFailed, NoNode, NoOtherNode, UsageError
from pymicro.plugins import Build
from pymicro.record import Endpoint, Node, ServiceRecord
from pymicro.registry import MemoryCatalog, MemoryRegistry, Registration
from pymicro.selector import Outcome, Pick, Selector, endpoint, label, version
from pymicro_testing._conformance import Conformance
from pymicro_testing._guard import since
from pymicro_testing.clock import ManualClock, settle
from pymicro_testing.leaks import no_leaks

_NAME: Final = "greeter"


class Scene(msgspec.Struct, kw_only=True):
    """An open selector and what is around it.

    Attributes:
        selector: the one that is tried.
        registry, catalog: where services are registered; the selector's build offers another registry on the catalog.
        build: what the selector was built with, to build another.
        clock: everybody's time.
    """

    selector: Selector
    registry: MemoryRegistry
    catalog: MemoryCatalog
    build: Build
    clock: ManualClock

    async def register(self, *numbers: int, version: str = "1.0.0", **metadata: str) -> Registration:
        """Register one node for each number, with endpoint `Greeter.Hello`, and let the selector hear of it."""
        nodes = tuple(Node(f"{_NAME}-{number}", f"127.0.0.1:{9000 + number}", metadata) for number in numbers)
        record = ServiceRecord(_NAME, version, {}, (Endpoint("Greeter.Hello"),), nodes)
        registration = await self.registry.register(record, ttl=0)
        await settle()
        return registration

    async def picks(self, count: int, **options: Any) -> Counter[str]:
        """How often each node is picked; every attempt ends well."""
        counter: Counter[str] = Counter()
        for _ in range(count):
            pick = await self.selector.pick(_NAME, **options)
            pick.done(Outcome.OK, 0.001)
            counter[pick.node.id] += 1
        return counter

    async def pick_node(self, number: int) -> Pick:
        """A pick of this node; the others that come up end well."""
        for _ in range(1000):
            pick = await self.selector.pick(_NAME)
            if pick.node.id == f"{_NAME}-{number}":
                return pick
            pick.done(Outcome.OK, 0.001)
        raise AssertionError(f"node {number} was never picked")


class SelectorConformance(Conformance[Selector]):
    """The cases for selectors that find their nodes in the registry of `build.get("registry")`.

    Define `make`. Cases use a memory registry and a `ManualClock` of their own, whatever `clock` says.

    Attributes beyond those of `Conformance`:
        long: seconds after which a node that was left out must have been tried again.
        spreads: whether the selector's own strategy uses all nodes when all are well.
    """

    long: ClassVar[float] = 300.0
    spreads: ClassVar[bool] = True

    @asynccontextmanager
    async def scene(self) -> AsyncIterator[Scene]:
        """An open selector beside an empty registry; nothing may be left at the end."""
        clock, catalog = ManualClock(), MemoryCatalog()
        async with no_leaks(grace=self.patience):
            async with (
                MemoryRegistry(None, Build(clock=clock), catalog=catalog) as registry,
                MemoryRegistry(None, Build(clock=clock), catalog=catalog) as given,
            ):
                build = self.build(clock=clock, components=lambda kind, name: given if kind == "registry" else None)
                async with self.make(build) as selector:
                    yield Scene(selector=selector, registry=registry, catalog=catalog, build=build, clock=clock)
            assert clock.pending == 0, "timers were left behind"

    # Picking

    @since("0.1")
    async def test_the_only_node_is_picked(self) -> None:
        async with self.scene() as scene:
            await scene.register(1)
            pick = await self.within(scene.selector.pick(_NAME))
            assert (pick.node.id, pick.node.address) == ("greeter-1", "127.0.0.1:9001")
            assert pick.service is not None
            assert (pick.service.name, pick.service.version) == (_NAME, "1.0.0")
            pick.answered()
            pick.done(Outcome.OK, 0.001)
            pick.done(Outcome.UNREACHABLE)
            assert await scene.picks(10) == {"greeter-1": 10}

    @since("0.1")
    async def test_every_node_is_used(self) -> None:
        if not self.spreads:
            pytest.skip("spreads is not declared")
        async with self.scene() as scene:
            await scene.register(1, 2, 3)
            await scene.register(4, 5, version="2.0.0")
            counts = await scene.picks(1000)
            assert set(counts) == {f"greeter-{number}" for number in range(1, 6)}
            assert min(counts.values()) >= 50, f"a node starves: {counts}"

    @since("0.1")
    async def test_a_known_service_is_picked_without_waiting(self) -> None:
        async with self.scene() as scene:
            await scene.register(1, 2)
            await self.within(scene.selector.pick(_NAME))
            cases: list[dict[str, Any]] = [
                {},
                {"filters": [version("1.0.0")]},
                {"exclude": ["greeter-1"]},
                {"key": "k"},
            ]
            for options in cases:
                _without_waiting(scene.selector.pick(_NAME, **options))

    @since("0.1")
    async def test_an_unknown_service_is_no_node(self) -> None:
        async with self.scene() as scene:
            with pytest.raises(NoNode) as failure:
                await self.advancing(scene, scene.selector.pick("nobody"))
            assert failure.value.executed == "no"
            assert "nobody" in str(failure.value)

    @since("0.1")
    async def test_filters_decide(self) -> None:
        async with self.scene() as scene:
            await scene.register(1, version="1.0.0", zone="a")
            await scene.register(2, version="2.0.0", zone="b")
            assert set(await scene.picks(20, filters=(version("2.0.0"),))) == {"greeter-2"}
            assert set(await scene.picks(20, filters=(label("zone", "a"),))) == {"greeter-1"}
            assert set(await scene.picks(20, filters=(endpoint("Greeter.Hello"), label("zone", "b")))) == {"greeter-2"}
            for filters in ((version("3.0.0"),), (endpoint("Greeter.Gone"),), (version("1.0.0"), label("zone", "b"))):
                await self.refused(scene.selector.pick(_NAME, filters=filters), NoNode)

    @since("0.1")
    async def test_excluded_nodes_are_not_picked(self) -> None:
        async with self.scene() as scene:
            await scene.register(1, 2, 3)
            assert set(await scene.picks(50, exclude={"greeter-1", "greeter-3", "stranger"})) == {"greeter-2"}
            everybody = [f"greeter-{number}" for number in (1, 2, 3)]
            await self.refused(scene.selector.pick(_NAME, exclude=everybody), NoOtherNode)
            assert sum((await scene.picks(10)).values()) == 10

    @since("0.1")
    async def test_a_strategy_may_be_given(self) -> None:
        async with self.scene() as scene:
            await scene.register(1, 2, 3)
            seen: list[tuple[int, str | None]] = []

            def last(candidates: Any, key: str | None) -> Any:
                seen.append((len(candidates), key))
                return max(candidates, key=lambda candidate: candidate.node.id)

            pick = await scene.selector.pick(_NAME, strategy=last, key="k")
            assert pick.node.id == "greeter-3"
            assert seen == [(3, "k")]
            await self.refused(scene.selector.pick(_NAME, strategy="no such strategy"), UsageError)

    # What is learnt

    @since("0.1")
    async def test_a_node_that_fails_is_left_out(self) -> None:
        for outcome in (Outcome.UNREACHABLE, Outcome.BROKEN):
            async with self.scene() as scene:
                await scene.register(1, 2)
                await self.fail(scene, 1, outcome)
                assert set(await scene.picks(50)) == {"greeter-2"}

    @since("0.1")
    async def test_other_outcomes_leave_nobody_out(self) -> None:
        for outcome in (Outcome.OK, Outcome.OVERLOADED, Outcome.UNKNOWN):
            async with self.scene() as scene:
                await scene.register(1, 2)
                for _ in range(5):
                    (await scene.pick_node(1)).done(outcome, 0.001)
                (await scene.pick_node(1)).done(Outcome.OK)

    @since("0.1")
    async def test_when_all_fail_all_are_used(self) -> None:
        async with self.scene() as scene:
            await scene.register(1, 2)
            await self.fail(scene, 1, Outcome.UNREACHABLE)
            await self.fail(scene, 2, Outcome.UNREACHABLE)
            (await self.within(scene.selector.pick(_NAME))).done(Outcome.UNREACHABLE)

    @since("0.1")
    async def test_a_node_that_failed_is_tried_again(self) -> None:
        async with self.scene() as scene:
            await scene.register(1, 2)
            for _ in range(3):
                await self.fail(scene, 1, Outcome.UNREACHABLE)
                assert set(await scene.picks(20)) == {"greeter-2"}
                await scene.clock.advance(self.long)
            (await scene.pick_node(1)).done(Outcome.OK, 0.001)
            (await scene.pick_node(1)).done(Outcome.OK, 0.001)

    @since("0.1")
    async def test_a_failure_is_counted_once(self) -> None:
        async with self.scene() as scene:
            await scene.register(1, 2)
            await self.fail(scene, 1, Outcome.UNREACHABLE)
            await scene.clock.advance(self.long)
            pick = await scene.pick_node(1)
            pick.done(Outcome.OK, 0.001)
            pick.done(Outcome.UNREACHABLE)
            (await scene.pick_node(1)).done(Outcome.OK)

    @since("0.1")
    async def test_two_selectors_learn_for_themselves(self) -> None:
        async with self.scene() as scene, self.make(scene.build) as other:
            await scene.register(1, 2)
            await self.fail(scene, 1, Outcome.UNREACHABLE)
            elsewhere = msgspec.structs.replace(scene, selector=other)
            (await elsewhere.pick_node(1)).done(Outcome.OK)

    # The registry

    @since("0.1")
    async def test_nodes_come_and_go(self) -> None:
        async with self.scene() as scene:
            first = await scene.register(1)
            assert set(await scene.picks(5)) == {"greeter-1"}
            await scene.register(2)
            (await scene.pick_node(2)).done(Outcome.OK)
            await first.aclose()
            await settle()
            assert set(await scene.picks(50)) == {"greeter-2"}

    @since("0.1")
    async def test_a_node_that_is_gone_is_told(self) -> None:
        async with self.scene() as scene:
            gone: list[str] = []
            deaf: list[str] = []
            scene.selector.on_removed(lambda node: gone.append(node.id))
            stop = scene.selector.on_removed(lambda node: deaf.append(node.id))
            first, _ = await scene.register(1), await scene.register(2)
            await scene.picks(5)
            stop()
            await first.aclose()
            await settle()
            assert (gone, deaf) == (["greeter-1"], [])

    @since("0.1")
    async def test_an_outage_of_the_registry_harms_no_known_service(self) -> None:
        async with self.scene() as scene:
            await scene.register(1)
            assert scene.selector.age(_NAME) is None
            await scene.picks(1)
            assert scene.selector.age(_NAME) == 0.0
            scene.catalog.available = False
            await settle()
            await scene.clock.advance(60.0)
            assert set(await scene.picks(5)) == {"greeter-1"}
            assert scene.selector.age(_NAME) == pytest.approx(60.0)
            await self.advancing_refused(scene, "unheard-of")
            scene.catalog.available = True
            await settle()
            assert scene.selector.age(_NAME) == 0.0

    # Cancellation and life cycle

    @since("0.1")
    async def test_cancelled_picks_leave_the_selector_sound(self) -> None:
        async with self.scene() as scene:
            for turns in range(8):
                picking = asyncio.create_task(scene.selector.pick("unheard-of"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await self.cancelled(picking)
            await scene.register(1)
            assert await scene.picks(3) == {"greeter-1": 3}

    @since("0.1")
    async def test_before_opening_everything_is_refused(self) -> None:
        async with self.scene() as scene:
            await self.refused(self.make(scene.build).pick(_NAME), Closed)

    @since("0.1")
    async def test_after_closing_everything_is_refused(self) -> None:
        async with self.scene() as scene:
            await scene.register(1)
            await scene.selector.aclose()
            await scene.selector.aclose()
            await self.refused(scene.selector.pick(_NAME), Closed)

    @since("0.1")
    async def test_a_closed_selector_picks_nothing_it_knew(self) -> None:
        async with self.scene() as scene:
            await scene.register(1)
            pick = await scene.selector.pick(_NAME)
            await scene.selector.aclose()
            await self.refused(scene.selector.pick(_NAME), Closed)
            pick.done(Outcome.UNREACHABLE)

    @since("0.1")
    async def test_closing_before_opening_is_harmless(self) -> None:
        async with self.scene() as scene:
            selector = self.make(scene.build)
            await selector.aclose()
            await selector.aclose()
            await self.refused(selector.__aenter__(), Closed)

    @since("0.1")
    async def test_closing_one_instance_leaves_the_other_alone(self) -> None:
        async with self.scene() as scene:
            await scene.register(1)
            async with self.make(scene.build) as other:
                await other.pick(_NAME)
            await scene.register(2)
            (await scene.pick_node(2)).done(Outcome.OK)

    # Helpers

    async def fail(self, scene: Scene, number: int, outcome: Outcome) -> None:
        """Let one attempt at a node fail."""
        (await scene.pick_node(number)).done(outcome, 0.001, DialFailed("refused", "127.0.0.1"))

    async def advancing(self, scene: Scene, coroutine: Coroutine[Any, Any, Pick]) -> Pick:
        """The result of a pick that may wait for the clock."""
        picking = asyncio.create_task(coroutine)
        for _ in range(60):
            await scene.clock.advance(1.0)
            if picking.done():
                break
        return await self.within(picking)

    async def advancing_refused(self, scene: Scene, service: str) -> None:
        """A pick of a service that nobody can know of ends in time."""
        with pytest.raises(NoNode):
            await self.advancing(scene, scene.selector.pick(service))


def _without_waiting(coroutine: Coroutine[Any, Any, Pick]) -> None:
    try:
        coroutine.send(None)
    except StopIteration as result:
        result.value.done(Outcome.OK)
        return
    coroutine.close()
    raise AssertionError("pick waited though the service is known")
