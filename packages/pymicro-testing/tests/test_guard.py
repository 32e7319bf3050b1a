"""Nobody drops a case of the kit quietly, and a new case warns before it counts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import pymicro_testing
from pymicro_testing import NewCaseWarning, RegistryConformance, Weakened
from pymicro_testing._guard import KIT_VERSION, check, since

CASE = "test_a_watch_begins_with_the_full_state"


async def original(self: Any) -> None:
    await getattr(RegistryConformance, CASE)(self)


def subclass(replacement: Any, *bases: type) -> type:
    return type("TestMine", (*bases, RegistryConformance), {CASE: replacement})


@pytest.mark.parametrize(
    "replacement",
    [
        original,
        None,
        property(original),
        pytest.mark.xfail(reason="not strict")(lambda self: None),
        pytest.mark.xfail(strict=True)(lambda self: None),
        pytest.mark.skip(reason="no time")(lambda self: None),
    ],
    ids=["overridden", "none", "property", "lax xfail", "xfail without a reason", "skip"],
)
def test_a_case_cannot_be_replaced(replacement: Any) -> None:
    with pytest.raises(Weakened, match=f"TestMine.{CASE} replaces a case"):
        subclass(replacement)


def test_a_case_cannot_be_replaced_by_a_mixin() -> None:
    mixin = type("Mixin", (), {CASE: original})
    with pytest.raises(Weakened, match=CASE):
        type("TestMine", (mixin, RegistryConformance), {})


def test_a_class_cannot_be_skipped() -> None:
    cls = pytest.mark.skip(reason="no time")(type("TestMine", (RegistryConformance,), {}))
    with pytest.raises(Weakened, match="TestMine is skipped"):
        check(cls)


def test_a_case_may_be_expected_to_fail_for_a_reason() -> None:
    async def expected(self: Any) -> None:
        await original(self)

    cls = subclass(pytest.mark.xfail(strict=True, reason="the server forgets")(expected))
    check(cls)
    check(type("TestMore", (cls,), {}))


def test_cases_of_ones_own_are_welcome() -> None:
    async def more(self: Any) -> None:
        pass

    check(type("TestMine", (RegistryConformance,), {"test_of_my_own": more, "helper": None}))


def test_what_was_changed_after_the_class_was_made_is_found_when_it_is_collected(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from pymicro.registry import MemoryRegistry
        from pymicro_testing import RegistryConformance

        class TestMine(RegistryConformance):
            def make(self, build):
                return MemoryRegistry(None, build)

        TestMine.test_a_watch_begins_with_the_full_state = None
        """
    )
    result = pytester.runpytest_inprocess("--asyncio-mode=auto", "-W", "ignore")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Weakened: TestMine.test_a_watch_begins_with_the_full_state replaces a case*"])


def test_the_kit_runs_under_pytest_and_says_what_it_skips(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from pymicro.registry import MemoryCatalog, MemoryRegistry
        from pymicro_testing import RegistryConformance

        @pytest.mark.asyncio
        class TestMine(RegistryConformance):
            def setup_method(self):
                self.catalog = MemoryCatalog()

            def make(self, build):
                return MemoryRegistry(None, build, catalog=self.catalog)

            @pytest.mark.xfail(strict=True, reason="to be seen")
            async def test_services_are_listed_sorted(self):
                assert False
        """
    )
    result = pytester.runpytest_inprocess(
        "--asyncio-mode=strict", "-rs", "-W", "ignore", "-k", "sorted or outage or whole"
    )
    result.assert_outcomes(passed=1, xfailed=1, skipped=3)
    result.stdout.fnmatch_lines(["*no server that can stop is declared*"])


async def test_a_new_case_warns_in_its_first_minor_version() -> None:
    async def fails() -> None:
        raise AssertionError("broken")

    with pytest.warns(NewCaseWarning, match=r"new in kit 0\.4 and fails.*broken"):
        await since("0.4", kit=(0, 4))(fails)()
    with pytest.raises(AssertionError, match="broken"):
        await since("0.4", kit=(0, 5))(fails)()


async def test_the_cases_of_the_first_version_count_at_once() -> None:
    async def fails() -> None:
        raise AssertionError("broken")

    with pytest.raises(AssertionError, match="broken"):
        await since("0.1", kit=(0, 1))(fails)()


async def test_a_new_case_may_still_skip() -> None:
    async def skips() -> None:
        pytest.skip("not declared")

    with pytest.raises(pytest.skip.Exception):
        await since("0.4", kit=(0, 4))(skips)()


def test_the_kits_version_is_that_of_the_distribution() -> None:
    pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert tuple(map(int, pyproject["project"]["version"].split(".")[:2])) == KIT_VERSION


def test_every_exported_name_is_there() -> None:
    assert sorted(pymicro_testing.__all__) == sorted(pymicro_testing._MODULES)
    for name in pymicro_testing.__all__:
        assert getattr(pymicro_testing, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = pymicro_testing.Nothing


def test_every_case_of_the_kit_is_marked() -> None:
    for name in pymicro_testing.__all__:
        if name.endswith("Conformance"):
            cls = getattr(pymicro_testing, name)
            unmarked = [
                case
                for case in dir(cls)
                if case.startswith("test_") and not hasattr(getattr(cls, case), "__pymicro_since__")
            ]
            assert unmarked == []
