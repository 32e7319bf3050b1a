"""Every asynchronous test runs on both event loops, with a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any

import pytest

from pymicro.plugins import Build
from pymicro_broker_redis import RedisBrokerOptions
from pymicro_broker_redis._broker import RedisBroker
from pymicro_testing.servers import RedisServer


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop"):  # not on every platform
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


OpenBroker = Callable[..., Awaitable[RedisBroker]]


@pytest.fixture
async def open_broker(redis_server: RedisServer) -> AsyncIterator[OpenBroker]:
    """Opens a broker; `options` change the defaults, other keywords its build. All are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_broker(options: Mapping[str, Any] | None = None, **build: Any) -> RedisBroker:
            build = {"addresses": (redis_server.address,), **build}
            broker = RedisBroker(RedisBrokerOptions(**(options or {})), Build(**build))
            return await stack.enter_async_context(broker)

        yield open_broker
