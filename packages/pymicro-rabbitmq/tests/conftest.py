"""Every asynchronous test runs on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import pytest


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop"):  # not on every platform
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories
