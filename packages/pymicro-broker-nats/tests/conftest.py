"""Against a real server, on both event loops; what JetStream's server does is the same on each, and takes time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any

import pytest

from pymicro.plugins import Build
from pymicro_broker_nats import NatsBrokerOptions
from pymicro_broker_nats._broker import NatsBroker
from pymicro_testing.servers import NatsServer


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop") and item.path.name != "test_jetstream.py":  # not on every platform
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


OpenBroker = Callable[..., Awaitable[NatsBroker]]


@pytest.fixture
async def open_broker(request: pytest.FixtureRequest) -> AsyncIterator[OpenBroker]:
    """Opens a broker, of the plain server if no `addresses` are given; other keywords are options or its build."""
    async with AsyncExitStack() as stack:

        async def open_broker(options: Mapping[str, Any] | None = None, **build: Any) -> NatsBroker:
            if "addresses" not in build:
                server: NatsServer = request.getfixturevalue("nats_server")
                build["addresses"] = (server.address,)
            return await stack.enter_async_context(NatsBroker(NatsBrokerOptions(**(options or {})), Build(**build)))

        yield open_broker
