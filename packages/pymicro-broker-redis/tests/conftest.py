"""Every asynchronous test runs on both event loops, with a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pymicro.plugins import Build
from pymicro_broker_redis import RedisBrokerOptions
from pymicro_broker_redis._broker import RedisBroker
from pymicro_testing.loops import event_loops
from pymicro_testing.servers import RedisServer


def pytest_asyncio_loop_factories() -> Mapping[str, Any]:
    return event_loops()


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
