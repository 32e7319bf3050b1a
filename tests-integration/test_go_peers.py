"""How the Go Micro peers are built."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import go_peers

#: Says that it is Go, and "builds" a program that is all the sources.
GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version of a test"; exit; fi
echo "$@" >> "$(dirname "$0")/builds"
cat *.go > peer
"""


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the Go of this test writes a line for each build."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(go.parent), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return go.parent / "builds"


def test_a_program_is_built_once(builds: Path) -> None:
    program = go_peers.build("v5.8.0")
    assert go_peers.build("v5.8.0") == program
    assert len(builds.read_text().splitlines()) == 1
    assert [path for path in program.parent.iterdir() if path != program] == []


def test_the_program_for_v4_has_its_imports(builds: Path) -> None:
    assert "go-micro.dev/v5" in go_peers.build("v5.8.0").read_text()
    text = go_peers.build("v4.11.0").read_text()
    assert "go-micro.dev/v4" in text
    assert "go-micro.dev/v5" not in text


@pytest.mark.parametrize(
    ("version", "there", "elsewhere"),
    [
        ("v5.8.0", '"go-micro.dev/v5/registry/etcd"', "github.com/go-micro/plugins"),
        ("v4.11.0", '"github.com/go-micro/plugins/v4/registry/etcd"', "go-micro.dev/v5"),
    ],
)
def test_the_program_with_backends_is_another_one(builds: Path, version: str, there: str, elsewhere: str) -> None:
    program = go_peers.build(version, backends=True)
    assert there in program.read_text()
    assert elsewhere not in program.read_text()
    small = go_peers.build(version)
    assert small != program
    assert there not in small.read_text()


def test_sessions_that_build_at_once(builds: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        programs = {*threads.map(go_peers.build, ["v5.8.0"] * 8)}
    [program] = programs
    assert program.read_text().count("func main()") == 1


@pytest.mark.parametrize(("ci", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_go(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(outcome, match="need Go"):
        go_peers.build("v5.8.0")
