"""Every asynchronous test runs on both event loops, and on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pymicro.plugins import TLS, Build
from pymicro_registry_nats import NatsRegistryOptions
from pymicro_registry_nats._registry import NatsRegistry
from pymicro_testing.loops import event_loops
from pymicro_testing.servers import NatsServer


def pytest_asyncio_loop_factories() -> Mapping[str, Any]:
    return event_loops()


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
