"""Every asynchronous test runs on both event loops, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any

import pytest

from pymicro.plugins import Build
from pymicro_transport_rabbitmq import RabbitmqTransportOptions
from pymicro_transport_rabbitmq._transport import RabbitmqTransport


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = {"asyncio": asyncio.new_event_loop}
    # A test that kills the server costs seconds, so it runs on one loop.
    if find_spec("uvloop") and not item.get_closest_marker("kills"):  # not on every platform
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kills: takes the real server away")


@pytest.fixture
async def open_transport(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Awaitable[RabbitmqTransport]]]:
    """Opens a transport; `options` change the defaults, other keywords its build. All are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_transport(options: Mapping[str, Any] | None = None, **build: Any) -> RabbitmqTransport:
            chosen = RabbitmqTransportOptions(**{"reconnect_interval": 0.1, "check_interval": 0.1, **(options or {})})
            addresses = build.pop("addresses", None) or (request.getfixturevalue("rabbitmq_server").address,)
            transport = RabbitmqTransport(chosen, Build(addresses=addresses, **build))
            return await stack.enter_async_context(transport)

        yield open_transport
