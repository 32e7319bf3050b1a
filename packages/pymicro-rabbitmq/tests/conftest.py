"""Every asynchronous test runs on both event loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymicro_testing.loops import event_loops


def pytest_asyncio_loop_factories() -> Mapping[str, Any]:
    return event_loops()
