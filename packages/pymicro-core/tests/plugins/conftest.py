from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pymicro.plugins._host import HOST, Host

HOOK = """
from pymicro.plugins import Plugin, hookimpl

@hookimpl
def pymicro_plugins():
    return [Plugin({fields})]
"""
ENABLED = """
from pymicro.plugins import enable
from {package} import _plugin

enable(_plugin)
"""


class Site:
    """A folder on `sys.path`, for modules and distributions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def module(self, name: str, source: str) -> None:
        """Put a module there; dots make packages."""
        path = self.path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        importlib.invalidate_caches()

    def metadata(self, distribution: str, points: Mapping[str, str], requires: Sequence[str] = ()) -> None:
        """Put what pip leaves of an installed distribution there."""
        info = self.path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n{needs}")
        lines = "".join(f"{point} = {module}\n" for point, module in points.items())
        (info / "entry_points.txt").write_text(f"[pymicro.plugins]\n{lines}")

    def package(
        self, distribution: str, kind: str, name: str, requires: Sequence[str] = (), more: str = "", **fields: Any
    ) -> str:
        """Install a package with one plugin, made as all of ours are; return its import name."""
        package = distribution.replace("-", "_")
        given = {"kind": kind, "name": name, "api": (1, 0), "target": f"{package}._impl:Impl", **fields}
        text = ", ".join(f"{field}={value!r}" for field, value in given.items())
        self.module(f"{package}.__init__", ENABLED.format(package=package))
        self.module(f"{package}._plugin", HOOK.format(fields=text) + more)
        self.module(f"{package}._impl", "class Impl: pass\n")
        self.metadata(distribution, {f"{kind}.{name}": f"{package}._plugin"}, requires)
        return package


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
        monkeypatch.setattr(HOST, name, value)
    return HOST
