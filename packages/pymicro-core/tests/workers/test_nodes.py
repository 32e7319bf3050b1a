"""What supervisors register."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence

import pytest

from pymicro.clock import SystemClock
from pymicro.errors import BackendRefused
from pymicro.record import Node, ServiceRecord
from pymicro.registry import MemoryRegistry, Registration
from pymicro.server import ServerOptions
from pymicro.workers._nodes import Nodes


def record(address: str, version: str = "1", **metadata: str) -> ServiceRecord:
    return ServiceRecord(name="many", version=version, metadata=metadata, nodes=(Node(f"many-{address}", address),))


class Refusing(MemoryRegistry):
    refuses = True

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        if self.refuses:
            raise BackendRefused("no")
        return await super().register(service, ttl=ttl)


class Setup:
    """Nodes and the registry that they are in."""

    def __init__(self, registry: MemoryRegistry, interval: float = 30.0) -> None:
        self.registry = registry
        options = ServerOptions(register_interval=interval)
        self.nodes = Nodes(registry, options, SystemClock(), logging.getLogger("test"))

    async def found(self) -> Sequence[ServiceRecord]:
        return await self.registry.get_service("many")


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with MemoryRegistry() as registry:
        yield Setup(registry)


async def test_workers_with_one_address_are_one_node(setup: Setup) -> None:
    await setup.nodes.keep([record("a:1"), record("a:1")])
    assert await setup.found() == (record("a:1"),)
    assert setup.nodes.reasons() == {}
    await setup.nodes.keep([record("a:1")])
    assert await setup.found() == (record("a:1"),)
    await setup.nodes.keep([])
    assert await setup.found() == ()


async def test_each_address_is_a_node(setup: Setup) -> None:
    await setup.nodes.keep([record("a:1"), record("b:1")])
    (found,) = await setup.found()
    assert {node.address for node in found.nodes} == {"a:1", "b:1"}
    await setup.nodes.keep([record("b:1")])
    assert await setup.found() == (record("b:1"),)
    await setup.nodes.aclose()
    assert await setup.found() == ()


async def test_what_is_registered_stays_while_one_worker_has_it(setup: Setup) -> None:
    old, new = record("a:1", colour="red"), record("a:1", colour="blue")
    await setup.nodes.keep([old, old])
    await setup.nodes.keep([old, new])
    assert await setup.found() == (old,)
    await setup.nodes.keep([new, new])
    assert await setup.found() == (new,)
    await setup.nodes.aclose()


async def test_a_program_that_became_another_version_is_registered_as_that(setup: Setup) -> None:
    await setup.nodes.keep([record("a:1")])
    await setup.nodes.keep([record("a:1", version="2")])
    assert await setup.found() == (record("a:1", version="2"),)
    await setup.nodes.aclose()
    assert await setup.found() == ()


async def test_a_refusal_fails_the_first_time_and_is_tried_again_later() -> None:
    async with Refusing() as registry:
        setup = Setup(registry, interval=0.01)
        with pytest.raises(BackendRefused):
            await setup.nodes.keep([record("a:1")], must=True)
        await setup.nodes.keep([])
        await setup.nodes.keep([record("a:1")])
        assert setup.nodes.reasons() == {"registry": "not registered at memory"}
        registry.refuses = False
        async with registry.watch("many") as snapshots:
            async for snapshot in snapshots:
                if snapshot.services:
                    break
        assert await setup.found() == (record("a:1"),)
        await setup.nodes.aclose()
