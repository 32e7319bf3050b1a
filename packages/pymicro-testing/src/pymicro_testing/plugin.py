"""The pytest plugin of pymicro-testing."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest

# Before the modules with the cases are imported: pytest then shows the values in their assertions.
pytest.register_assert_rewrite("pymicro_testing")


def pytest_pycollect_makeitem(name: str, obj: Any) -> None:
    """Check a conformance class again when it is collected: it may have been changed after it was made."""
    module = sys.modules.get("pymicro_testing._conformance")
    if module is not None and inspect.isclass(obj) and issubclass(obj, module.Guarded):
        from pymicro_testing import _guard

        _guard.check(obj)
