"""The modules that tests here share stand beside this file; `go` and `caller` are services over HTTP."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pymicro import Service

sys.path.insert(0, str(Path(__file__).resolve().parent))

from recorded_service import Go, Greeter, Streamer


@pytest.fixture
async def go() -> AsyncIterator[Go]:
    """A service that serves what the recorded one did."""
    greeter, streamer = Greeter(), Streamer()
    service = Service(
        "greeter",
        environ={},
        transport="http",
        registry="memory",
        broker="memory",
        server_address="127.0.0.1:0",
        drain_delay=0.0,
    )
    service.handle(greeter)
    service.handle(streamer)
    service.subscribe("events", greeter.on_event)
    async with service:
        assert service.server.node is not None
        yield Go(service.server.node.address, greeter, streamer)


@pytest.fixture
async def caller() -> AsyncIterator[Service]:
    """A service that calls others."""
    async with Service("caller", environ={}, transport="http", registry="memory", broker="memory") as service:
        yield service
