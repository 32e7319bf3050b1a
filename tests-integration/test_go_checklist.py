"""The checklist itself: what a session says about the page."""

from __future__ import annotations

from pathlib import Path

import pytest

import go_checklist

HERE = Path(__file__).parent

CONFTEST = f"""
import sys
from pathlib import Path
import pytest
sys.path.insert(0, {str(HERE)!r})
import go_checklist

def pytest_configure(config):
    here = Path(__file__).parent
    checklist = go_checklist.Checklist(config, here / "docs" / "page.md", here)
    config.pluginmanager.register(checklist)

@pytest.fixture(params=["v5", "v4"])
def go_version(request):
    return request.param
"""

ONE = """
import pytest

@pytest.mark.checklist(1)
def test_one(go_version):
    pass
"""
TWO = """
import pytest

@pytest.mark.checklist(2, against="v6")
@pytest.mark.parametrize("number", [1, 2])
def test_two(number):
    pass

@pytest.mark.checklist(2)
def test_three(go_version):
    pass

def test_something_else():
    pass
"""
ROWS = """
## Group

| item | what | tests | passed against |
| --: | --- | --- | --- |
| 1 | first | [`test_one`](../test_one.py) | v5, v4 |
| 2 | second | [`test_three`](../test_two.py)<br>[`test_two`](../test_two.py) | v6, v5, v4 |
| 3 | third |  | not yet: later |
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with three items, one of which is not built yet, and tests of the others."""
    monkeypatch.setattr(go_checklist, "ITEMS", {"Group": {1: "first", 2: "second", 3: "third"}})
    monkeypatch.setattr(go_checklist, "NUMBERS", {1, 2, 3})
    monkeypatch.setattr(go_checklist, "NOT_YET", {3: "not yet: later"})
    monkeypatch.delenv(go_checklist.WRITE, raising=False)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_one=ONE, test_two=TWO)
    pytester.mkdir("docs")
    return pytester


@pytest.fixture
def page(project: pytest.Pytester) -> Path:
    """The page, as a whole run writes it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(go_checklist.WRITE, "1")
        assert project.runpytest().ret == 0
    return project.path / "docs" / "page.md"


def test_a_whole_run_writes_the_page_and_agrees_with_it(project: pytest.Pytester, page: Path) -> None:
    assert page.read_text().endswith(ROWS)
    assert project.runpytest().ret == 0


def test_a_page_that_says_something_else(project: pytest.Pytester, page: Path) -> None:
    page.write_text(page.read_text().replace("v5, v4", "v5"))
    result = project.runpytest()
    assert result.ret == 1
    result.stdout.fnmatch_lines("page.md is not what this session saw; run the tests with PYMICRO_WRITE=1")


@pytest.mark.parametrize("arguments", [["-k", "one"], ["test_one.py"], ["test_one.py::test_one", "test_two.py"]])
def test_a_run_of_some_tests_says_nothing(project: pytest.Pytester, page: Path, arguments: list[str]) -> None:
    page.write_text("other")
    assert project.runpytest(*arguments).ret == 0


def test_a_run_with_a_skip_says_nothing(project: pytest.Pytester, page: Path) -> None:
    page.write_text("other")
    project.makepyfile(test_one=ONE.replace("pass", "pytest.skip('no Go')"))
    assert project.runpytest().ret == 0


def test_an_item_without_a_test(project: pytest.Pytester, page: Path) -> None:
    (project.path / "test_two.py").unlink()
    result = project.runpytest()
    assert result.ret == 1
    result.stdout.fnmatch_lines("item 2 has no test")


@pytest.mark.parametrize(
    ("mark", "says"),
    [("checklist(4)", "*the checklist has no item 4*"), ("checklist(3)", "*no item 3, or it is not built yet*")],
)
def test_marks_that_make_no_sense(project: pytest.Pytester, mark: str, says: str) -> None:
    project.makepyfile(test_one=ONE.replace("checklist(1)", mark))
    result = project.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(says)


def test_a_mark_without_a_version(project: pytest.Pytester) -> None:
    project.makepyfile(test_one=ONE.replace("go_version", ""))
    result = project.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*against which Go Micro?*")
