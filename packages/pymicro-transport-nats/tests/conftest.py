"""Every asynchronous test runs on both event loops, and on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pymicro.plugins import TLS, Build, Limits
from pymicro_testing.loops import event_loops
from pymicro_testing.servers import NatsServer
from pymicro_transport_nats import NatsTransportOptions
from pymicro_transport_nats._transport import NatsTransport


def pytest_asyncio_loop_factories() -> Mapping[str, Any]:
    return event_loops()


@pytest.fixture
async def open_transport(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Awaitable[NatsTransport]]]:
    """Opens a transport, at the plain server if no address is given; keywords are options."""
    async with AsyncExitStack() as stack:

        async def open_transport(
            *addresses: str, tls: TLS | None = None, limits: Limits | None = None, **options: Any
        ) -> NatsTransport:
            if not addresses:
                server: NatsServer = request.getfixturevalue("nats_server")
                addresses = (server.address,)
            build = Build(addresses=addresses, tls=tls or TLS(), limits=limits or Limits(), timeout=2.0)
            return await stack.enter_async_context(NatsTransport(NatsTransportOptions(**options), build))

        yield open_transport
