"""Every asynchronous test runs on both event loops, and on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any

import pytest

from pymicro.plugins import TLS, Build
from pymicro_registry_nats import NatsRegistryOptions
from pymicro_registry_nats._registry import NatsRegistry
from pymicro_testing.servers import NatsServer


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop"):  # not on every platform
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
async def open_registry(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Awaitable[NatsRegistry]]]:
    """Opens a registry, at the plain server if no address is given; keywords are options. All are closed in the end."""
    async with AsyncExitStack() as stack:

        async def open_registry(
            *addresses: str, tls: TLS | None = None, timeout: float = 2.0, **options: Any
        ) -> NatsRegistry:
            if not addresses:
                server: NatsServer = request.getfixturevalue("nats_server")
                addresses = (server.address,)
            build = Build(addresses=addresses, tls=tls or TLS(), timeout=timeout)
            return await stack.enter_async_context(NatsRegistry(NatsRegistryOptions(**options), build))

        yield open_registry
