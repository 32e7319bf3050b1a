"""What the README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def programs() -> dict[str, str]:
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", README.read_text(), re.DOTALL)
    return dict(blocks)


def test_the_programs_of_the_readme_run(pytester: pytest.Pytester) -> None:
    for name, text in programs().items():
        pytester.path.joinpath(name).write_text(text)
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess("--asyncio-mode=auto", "-W", "ignore", "-k", "greets or hangs or sorted")
    result.assert_outcomes(passed=3)


def test_the_program_with_a_server_runs(pytester: pytest.Pytester, redis_server: object) -> None:
    pytester.path.joinpath("test_backend.py").write_text(programs()["test_backend.py"])
    pytester.runpytest_subprocess("--asyncio-mode=auto", "-W", "ignore").assert_outcomes(passed=1)


def test_a_users_first_test_has_ten_lines_at_most() -> None:
    assert len(programs()["test_greeter.py"].splitlines()) <= 10
