"""Entry points of installed distributions, read from the files that installers leave.

The standard library's `importlib.metadata` does this too, but it brings parsers of mail and of archives: with it, a
service takes a fifth longer to start. So it is asked only where distributions may lie in something else than folders.

The form of the files: https://packaging.python.org/en/latest/specifications/entry-points/
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from itertools import takewhile
from typing import Final

import msgspec

_SUFFIXES: Final = (".dist-info", ".egg-info")
_UNNAMED: Final = "an unnamed distribution"


class EntryPoint(msgspec.Struct, frozen=True):
    """One line of an `entry_points.txt`.

    Attributes:
        name: what is offered.
        module: where it is; what may follow behind a colon is left out.
        distribution: who offers it, with its version.
    """

    name: str
    module: str
    distribution: str


def entry_points(group: str, path: Sequence[str]) -> list[EntryPoint]:
    """The entry points of one group, of every distribution on `path`. Of two with one name the first counts."""
    if not _only_folders(path):
        return _ask_library(group)
    found: list[EntryPoint] = []
    seen: set[str] = set()
    for root in path:
        for name in _names(root):
            if not name.lower().endswith(_SUFFIXES):
                continue
            distribution = re.sub(r"[-_.]+", "_", name.partition("-")[0]).lower()
            if distribution not in seen:
                seen.add(distribution)
                found += _in_folder(group, os.path.join(root, name))
    return found


def _only_folders(path: Sequence[str]) -> bool:
    """Whether distributions lie in plain folders, and no finder looks for them elsewhere."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    return finders == [PathFinder] and not any(root.endswith(".egg") or os.path.isfile(root) for root in path)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")
    except OSError:
        return []


def _ask_library(group: str) -> list[EntryPoint]:
    import importlib.metadata

    return [
        EntryPoint(point.name, point.module, f"{point.dist.name} {point.dist.version}" if point.dist else _UNNAMED)
        for point in importlib.metadata.entry_points(group=group)
    ]


def _in_folder(group: str, folder: str) -> list[EntryPoint]:
    lines = list(_section(group, _lines(os.path.join(folder, "entry_points.txt"))))
    who = _who(folder) if lines else ""
    parts = [line.partition("=") for line in lines]
    return [EntryPoint(name.strip(), re.split(r"[:\[]", value)[0].strip(), who) for name, _, value in parts]


def _section(wanted: str, lines: Sequence[str]) -> Iterator[str]:
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
        elif section == wanted and line and not line.startswith("#"):
            yield line


def _who(folder: str) -> str:
    """Name and version."""
    lines = _lines(os.path.join(folder, "METADATA")) or _lines(os.path.join(folder, "PKG-INFO"))
    head = dict(line.split(": ", 1) for line in takewhile(bool, lines) if ": " in line)
    return f"{head['Name']} {head['Version']}" if {"Name", "Version"} <= head.keys() else _UNNAMED


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return stream.read().splitlines()
    except OSError:
        return []
