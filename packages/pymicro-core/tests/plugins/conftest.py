from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from pymicro.plugins import _host
from pymicro.plugins._host import HOST, Host

HOOK = """
from pymicro.plugins import Plugin, hookimpl

@hookimpl
def pymicro_plugins():
    return [{plugins}]
"""


def plugin(kind: str, name: str, *, api: tuple[int, int] = (1, 0), target: str = "nowhere:Nothing", more: str = "") -> str:
    """The source of one description."""
    return f"Plugin(kind={kind!r}, name={name!r}, api={api!r}, target={target!r}, {more})"


def hook(*plugins: str) -> str:
    """The source of a module that describes plugins."""
    return HOOK.format(plugins=", ".join(plugins))


class Site:
    """A folder on `sys.path`, for modules and distributions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def module(self, name: str, source: str) -> None:
        """Put a module there; dots make packages."""
        path = self.path.joinpath(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(source)
        importlib.invalidate_caches()

    def distribution(self, name: str, entry_points: Mapping[str, str], requires: Sequence[str] = ()) -> None:
        """Put the metadata of an installed distribution there."""
        info = self.path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
        points = "".join(f"{point} = {module}\n" for point, module in entry_points.items())
        (info / "entry_points.txt").write_text(f"[pymicro.plugins]\n{points}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """The process's host, as if nothing had happened yet; its state comes back after the test."""
    for name, value in vars(Host()).items():
        monkeypatch.setattr(_host.HOST, name, value)
    return HOST
