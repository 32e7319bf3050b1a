"""Entry points are read as the standard library reads them."""

from __future__ import annotations

import importlib.metadata
import sys
import zipfile
from pathlib import Path

import pytest

from pymicro.plugins._entry_points import EntryPoint, entry_points

GROUP = "pymicro.plugins"


def installed(folder: Path, name: str, points: str, metadata: str | None) -> None:
    folder.joinpath(name).mkdir(parents=True)
    folder.joinpath(name, "entry_points.txt").write_text(points)
    if metadata is not None:
        folder.joinpath(name, "PKG-INFO" if name.endswith(".egg-info") else "METADATA").write_text(metadata)


@pytest.mark.parametrize("group", [GROUP, "console_scripts", "is.not.there"])
def test_what_is_installed_here_is_found(group: str) -> None:
    expected = {
        (point.name, point.module, f"{point.dist.name} {point.dist.version}")
        for point in importlib.metadata.entry_points(group=group)
        if point.dist is not None
    }

    assert {(point.name, point.module, point.distribution) for point in entry_points(group, sys.path)} == expected


def test_one_group_of_a_file_is_read(tmp_path: Path) -> None:
    text = f"[other]\na = b\n[{GROUP}]\n# c = d\n\nregistry.x = x._plugin:hook [extra]\ncodec.y=y\n[more]\ne = f\n"
    installed(tmp_path, "x_y-1.dist-info", text, "Metadata-Version: 2.1\nName: x-y\nVersion: 1\n\nName: text\n")
    expected = [EntryPoint("registry.x", "x._plugin", "x-y 1"), EntryPoint("codec.y", "y", "x-y 1")]

    assert entry_points(GROUP, [str(tmp_path)]) == expected


def test_older_and_damaged_metadata(tmp_path: Path) -> None:
    installed(tmp_path, "old.egg-info", f"[{GROUP}]\nregistry.old = old\n", "Name: old\nVersion: 2\n")
    installed(tmp_path, "bare-1.dist-info", f"[{GROUP}]\nregistry.bare = bare\n", None)
    tmp_path.joinpath("empty-1.dist-info").mkdir()

    assert {point.distribution for point in entry_points(GROUP, [str(tmp_path)])} == {
        "old 2",
        "an unnamed distribution",
    }


def test_the_first_of_two_with_one_name_counts(tmp_path: Path) -> None:
    installed(tmp_path / "one", "A_b-1.dist-info", f"[{GROUP}]\nregistry.x = one\n", None)
    installed(tmp_path / "two", "a.b-2.dist-info", f"[{GROUP}]\nregistry.x = two\n", None)
    path = [str(tmp_path / name) for name in ("is_not_there", "one", "two")]

    assert [point.module for point in entry_points(GROUP, path)] == ["one"]


def test_archives_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "birds.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("birds-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: birds\nVersion: 1\n")
        file.writestr("birds-1.dist-info/entry_points.txt", f"[{GROUP}]\nregistry.x = birds\n")
    monkeypatch.syspath_prepend(str(archive))

    assert EntryPoint("registry.x", "birds", "birds 1") in entry_points(GROUP, sys.path)
