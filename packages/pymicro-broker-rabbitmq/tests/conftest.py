"""Every asynchronous test runs on both event loops, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pymicro.plugins import Build
from pymicro_broker_rabbitmq import RabbitmqBrokerOptions
from pymicro_broker_rabbitmq._broker import RabbitmqBroker
from pymicro_testing.loops import event_loops


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Any]:
    # A test that kills the server costs seconds, so it runs on one loop.
    return event_loops("asyncio") if item.get_closest_marker("kills") else event_loops()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kills: takes the real server away")


@pytest.fixture
async def open_broker(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Awaitable[RabbitmqBroker]]]:
    """Opens a broker; `options` change the defaults, other keywords its build. All are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_broker(options: Mapping[str, Any] | None = None, **build: Any) -> RabbitmqBroker:
            chosen = RabbitmqBrokerOptions(**{"reconnect_interval": 0.2, **(options or {})})
            addresses = build.pop("addresses", None) or (request.getfixturevalue("rabbitmq_server").address,)
            broker = RabbitmqBroker(chosen, Build(addresses=addresses, **build))
            return await stack.enter_async_context(broker)

        yield open_broker
