"""The event loops that tests run on."""

from __future__ import annotations

import pytest

from pymicro_testing import loops


def test_both_loops_are_there_by_name() -> None:
    assert set(loops.event_loops()) == set(loops.event_loops("uvloop", "asyncio")) == {"asyncio", "uvloop"}
    for name in ("asyncio", "uvloop"):
        (factory,) = loops.event_loops(name).values()
        loop = factory()
        assert type(loop).__module__.partition(".")[0] == name
        loop.close()


def test_asyncios_loop_takes_the_place_of_one_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "find_spec", lambda name: None)
    assert set(loops.event_loops()) == set(loops.event_loops("uvloop")) == {"asyncio"}
