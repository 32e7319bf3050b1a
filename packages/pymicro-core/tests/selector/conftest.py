from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pymicro.plugins import Build
from pymicro.record import Endpoint, Node, ServiceRecord
from pymicro.registry import MemoryCatalog, MemoryRegistry, Registration
from pymicro.selector import Outcome, Pick, RegistrySelector, RegistrySelectorOptions
from pymicro_testing import ManualClock, settle


class Mesh:
    """A selector, its registry, and another process in which nodes come and go."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.catalog = MemoryCatalog()
        self.registry = self._registry()
        self.others = self._registry()
        self.registrations: dict[str, Registration] = {}
        self.selectors = AsyncExitStack()

    def _registry(self) -> MemoryRegistry:
        return MemoryRegistry(None, Build(clock=self.clock), catalog=self.catalog)

    async def selector(self, *, chance: Callable[[], float] | None = None, **options: Any) -> RegistrySelector:
        build = Build(clock=self.clock, components=lambda kind, name: self.registry)
        how = {} if chance is None else {"chance": chance}
        selector = RegistrySelector(RegistrySelectorOptions(**options), build, **how)
        return await self.selectors.enter_async_context(selector)

    async def add(
        self, *ids: str, name: str = "greeter", version: str = "1.0", endpoint: str = "", **metadata: str
    ) -> None:
        """Run nodes, each at a port of its own."""
        endpoints = (Endpoint(endpoint),) if endpoint else ()
        for id in ids:
            node = Node(id, f"10.0.0.1:{id}", metadata)
            record = ServiceRecord(name, version, endpoints=endpoints, nodes=(node,))
            self.registrations[id] = await self.others.register(record, ttl=0)
        await settle()

    async def remove(self, *ids: str) -> None:
        for id in ids:
            await self.registrations.pop(id).aclose()
        await settle()


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    mesh = Mesh()
    async with mesh.registry, mesh.others, mesh.selectors:
        yield mesh


@pytest.fixture
def ids() -> Callable[..., Any]:
    """`await ids(selector, 10)`: the ids of the nodes of that many calls that succeed."""

    async def ids(selector: RegistrySelector, count: int = 100, **how: Any) -> list[str]:
        picked = []
        for _ in range(count):
            pick = await selector.pick("greeter", **how)
            picked.append(pick.node.id)
            pick.done(Outcome.OK, 0.001)
        return picked

    return ids


@pytest.fixture
def pick_of() -> Callable[..., Any]:
    """`await pick_of(selector, "1")`: a pick of that node; the others that came first end well."""

    async def pick_of(selector: RegistrySelector, id: str, tries: int = 1000) -> Pick:
        for _ in range(tries):
            pick = await selector.pick("greeter")
            if pick.node.id == id:
                return pick
            pick.done(Outcome.UNKNOWN)
        raise AssertionError(f"{id} is never picked")

    return pick_of
