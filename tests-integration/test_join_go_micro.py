"""Runs the page `docs/how-to/join-go-micro.md`, whose programs are in Go and in Python."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from go_mesh import OWN_NETWORK
from go_peers import go_command, missing

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "docs/snippets/join-go-micro"
BUILD = "$ go build -o bin/ ./order ./prices\n"

#: Seconds for the build, which at first downloads Go Micro and all that it can be used with.
PATIENT = 300


def pages() -> ModuleType:
    """What runs the other pages."""
    spec = importlib.util.spec_from_file_location("test_snippets", ROOT / "docs" / "test_snippets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(2 * PATIENT)
def test_the_programs_of_the_page_find_each_other(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    go = go_command()
    if not OWN_NETWORK:
        missing("the services of this page have common names: they need a network of their own, with Linux and root")
    snippets = pages()
    commands = snippets.SESSIONS["docs/how-to/join-go-micro.md", FOLDER]
    assert commands.startswith(BUILD)
    folder = snippets.copied(ROOT / FOLDER, tmp_path)
    command = [go, *BUILD.split()[2:]]
    subprocess.run(command, cwd=folder, env=os.environ | {"GOFLAGS": "-buildvcs=false"}, check=True, timeout=PATIENT)
    everybody = {name: value for name, value in snippets.surroundings().items() if not name.startswith("MICRO_")}
    request.getfixturevalue("machine")  # not before: to build takes the internet
    snippets.play(commands.removeprefix(BUILD), folder, everybody)
