"""Conformance cases run on both event loops, the other tests on uvloop, and everything on a real Consul."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from pymicro.plugins import TLS, Build
from pymicro.registry import Node, ServiceRecord
from pymicro_registry_consul import ConsulOptions
from pymicro_registry_consul._registry import ConsulRegistry
from pymicro_testing import registry
from pymicro_testing.loops import event_loops
from pymicro_testing.servers import ConsulServer

#: Seconds in which everything must happen, also after an outage.
PATIENCE = 15.0


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Any]:
    if item.path.name != "test_conformance.py":
        return event_loops("uvloop")
    # Consul takes seconds to come back: the kit's outages are on one loop, those of the other tests on the other.
    assert isinstance(item, pytest.Function)
    return event_loops("asyncio") if "outage" in item.function.__code__.co_names else event_loops()


@pytest.fixture
def name() -> str:
    """A service that no other test has."""
    return f"greeter-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def open_registry(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Opens a registry, at `consul_server` if no address is given; keywords are options. All are closed in the end."""
    async with AsyncExitStack() as stack:

        async def open_registry(
            *addresses: str, tls: TLS | None = None, timeout: float = 2.0, **options: Any
        ) -> ConsulRegistry:
            addresses = addresses or (request.getfixturevalue("consul_server").address,)
            build = Build(addresses=addresses, tls=tls or TLS(), timeout=timeout)
            return await stack.enter_async_context(ConsulRegistry(ConsulOptions(**options), build))

        yield open_registry


@pytest.fixture
def record() -> Callable[..., ServiceRecord]:
    """A record with one node."""

    def record(name: str, id: str = "1", version: str = "1.0.0", **metadata: str) -> ServiceRecord:
        return ServiceRecord(name, version, nodes=(Node(f"{name}-{id}", "127.0.0.1:9000", metadata),))

    return record


class Consul:
    """What an administrator, or another program, does to Consul."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session, self._base = session, f"http://{address}/v1/"

    async def get(self, path: str) -> Any:
        """What it says; None if there is no such thing."""
        async with self._session.get(self._base + path) as answer:
            return None if answer.status == 404 else await answer.json(content_type=None)

    async def put(self, path: str, body: Any = None) -> None:
        """Fail unless it agrees."""
        async with self._session.put(self._base + path, json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def clear(self) -> None:
        """Deregister what other tests left there, as processes that were killed do."""
        for id in await self.get("agent/services"):
            await self.put(f"agent/service/deregister/{quote(id)}")

    async def services(self, name: str) -> dict[str, Any]:
        """The services of the agent with this name, by id."""
        found = await self.get("agent/services")
        return {id: service for id, service in found.items() if service["Service"] == name}

    async def statuses(self, name: str) -> dict[str, str]:
        """The status of the checks of a service, by check id."""
        found = await self.get(f"health/checks/{quote(name)}")
        return {check["CheckID"]: check["Status"] for check in found}

    async def modified(self, name: str) -> dict[str, int]:
        """The index at which each instance of a service was changed last, by id."""
        found = await self.get(f"health/service/{quote(name)}")
        return {each["Service"]["ID"]: each["Service"]["ModifyIndex"] for each in found}


@pytest.fixture
async def consul(consul_server: ConsulServer) -> AsyncIterator[Consul]:
    """A way to the server that owes nothing to the registry."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield Consul(session, consul_server.address)


@pytest.fixture
def until() -> Callable[..., Any]:
    """Takes snapshots until one fits; those up to it are appended to `seen`."""
    return functools.partial(registry.until, within=PATIENCE)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Asks until the answer fits."""

    async def eventually(ask: Callable[[], Any], fits: Callable[[Any], bool], within: float = PATIENCE) -> Any:
        async with asyncio.timeout(within):
            while not fits(answer := await ask()):  # noqa: ASYNC110  # what Consul answers is no event
                await asyncio.sleep(0.02)
        return answer

    return eventually
