"""The event loops that tests run on: what the hook `pytest_asyncio_loop_factories` of pytest-asyncio returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec


def event_loops(*names: str) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Factories of event loops by name.

    Args:
        names: of `asyncio` and `uvloop`, those that are wanted; both if none is given. uvloop is not on every platform:
            where it is not installed, asyncio's own loop takes its place.
    """
    factories = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop"):
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return {name: factory for name, factory in factories.items() if not names or name in names} or factories
