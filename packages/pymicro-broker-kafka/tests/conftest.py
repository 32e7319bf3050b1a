"""Tests run on asyncio where the server is taken away, which takes seconds each time, and the others on uvloop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import pytest

from pymicro.plugins import Build
from pymicro_broker_kafka import KafkaBrokerOptions
from pymicro_broker_kafka._broker import KafkaBroker
from pymicro_testing.servers import KafkaServer

#: A new consumer of a queue waits for a sign of life of the others.
QUICK = {"heartbeat": 0.1, "session_timeout": 3.0, "partitions": 2}

OUTAGES = re.compile("outage|hanging|without_a_server|test_plugin|rebalance")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if find_spec("uvloop") and not OUTAGES.search(item.nodeid):  # not on every platform
        import uvloop

        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


OpenBroker = Callable[..., Awaitable[KafkaBroker]]


@pytest.fixture
async def open_broker(kafka_server: KafkaServer) -> AsyncIterator[OpenBroker]:
    """Opens a broker; `options` change the defaults, other keywords its build. All are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_broker(options: Mapping[str, Any] | None = None, **build: Any) -> KafkaBroker:
            build = {"addresses": (kafka_server.address,), **build}
            broker = KafkaBroker(KafkaBrokerOptions(**{**QUICK, **(options or {})}), Build(**build))
            return await stack.enter_async_context(broker)

        yield open_broker


@pytest.fixture
def topic() -> str:
    """One that no other test has."""
    return f"topic-{uuid4().hex[:12]}"
