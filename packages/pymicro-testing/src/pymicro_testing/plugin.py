"""The pytest plugin: fixtures for tests of services, and the check that no conformance case was dropped.

Nothing of pymicro is imported before a test asks for it. What a fixture gives needs no plugin for async fixtures: it
is an object, or an async context manager that the test enters.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pymicro_testing import FaultProxy, ManualClock, Mesh

# Before the modules with the cases are imported: pytest then shows the values in their assertions.
pytest.register_assert_rewrite("pymicro_testing")

pytest_plugins = ["pymicro_testing._server_fixtures"]


def pytest_pycollect_makeitem(name: str, obj: Any) -> None:
    """Check a conformance class again when it is collected: it may have been changed after it was made."""
    module = sys.modules.get("pymicro_testing._conformance")
    if module is not None and inspect.isclass(obj) and issubclass(obj, module.Guarded):
        from pymicro_testing import _guard

        _guard.check(obj)


@pytest.fixture
def mesh(request: pytest.FixtureRequest) -> Mesh:
    """Services that find, call and hear each other in memory; on the fixture `clock`, if the test uses it too."""
    from pymicro_testing import Mesh

    return Mesh(clock=request.getfixturevalue("clock") if "clock" in request.fixturenames else None)


@pytest.fixture
def serve(mesh: Mesh) -> Callable[..., Any]:
    """`async with serve(Greeter()) as greeter`: a handler behind a real client and server; see `Mesh.serve`."""
    return mesh.serve


@pytest.fixture
def published(mesh: Mesh) -> Callable[..., list[Any]]:
    """`published("events", Event)`: what services of the mesh published; see `Mesh.published`."""
    return mesh.published


@pytest.fixture
def fake() -> Callable[..., Any]:
    """`fake(Users, get=User("John"))`: a stand-in for a neighbour; see `pymicro_testing.fake`."""
    from pymicro_testing import fake

    return fake


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until `await clock.advance(seconds)`."""
    from pymicro_testing import ManualClock

    return ManualClock()


@pytest.fixture
def faults() -> type[FaultProxy]:
    """`async with faults("127.0.0.1:4222") as proxy`: a proxy that misbehaves on request."""
    from pymicro_testing import FaultProxy

    return FaultProxy


@pytest.fixture
def no_leaks() -> Callable[..., Any]:
    """`async with no_leaks()`: the block must leave no task, thread, socket or file."""
    from pymicro_testing import no_leaks

    return no_leaks
