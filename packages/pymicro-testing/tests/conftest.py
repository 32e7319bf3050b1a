"""What the tests of the kit share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from pymicro_testing.loops import event_loops

#: What touches sockets runs on both event loops.
BOTH_LOOPS = {"test_faults.py", "test_leaks.py", "test_broken_networks.py", "test_mesh.py"}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Any]:
    return event_loops() if item.path.name in BOTH_LOOPS else event_loops("asyncio")


@pytest.fixture
async def rubbish_removed() -> AsyncIterator[None]:
    """Ends what a broken implementation left running."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1.0)


CaseFails = Callable[[object, str], Awaitable[None]]


@pytest.fixture
def case_fails() -> CaseFails:
    """Runs one case of a suite and fails unless the case does; a case that is skipped finds nothing."""

    async def run(suite: object, case: str) -> None:
        try:
            await getattr(suite, case)()
        except pytest.skip.Exception as skipped:
            raise AssertionError(f"{case} was skipped: {skipped}") from None
        except (Exception, pytest.fail.Exception):
            return
        raise AssertionError(f"{case} found nothing wrong")

    return run
