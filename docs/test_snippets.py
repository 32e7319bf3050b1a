"""Runs what the pages show: programs, tests, and commands with what they print.

In a block marked `console`, a line that begins with `$` is a command and the lines after it are what it prints, where
`...` stands for anything within a line. A comment above the block says in which folder; without one it is the root:

    <!-- in docs/snippets/first-service/step-1 -->

Blocks of one page with one folder are one session, in a copy of that folder. A command that ends in `&` is a server:
the next one is run once it has started, and `kill %1` stops the first of them.

The pages say `--broker=redis` and no address: that of a server which the test starts is given as a variable.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pymicro_testing.servers import SERVERS, NativeServer

ROOT = Path(__file__).resolve().parent.parent
SNIPPETS = ROOT / "docs" / "snippets"
PAGES = [ROOT / "README.md", *sorted(page for page in ROOT.glob("docs/**/*.md") if SNIPPETS not in page.parents)]
BLOCK = re.compile(r"(?:^<!-- in (\S+) -->\n)?^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
CHOICE = re.compile(r"--(registry|transport|broker)=(\w+)")
HATCH = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["envs"]["default"]["scripts"]
DEAD_LETTERS = "docs/snippets/handle-dead-letters"
TESTED = sorted({path.parent for path in SNIPPETS.rglob("test_*.py")})
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*_cache")


def sessions() -> dict[tuple[str, str], str]:
    """The console blocks by page and folder."""
    found: dict[tuple[str, str], str] = {}
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        for folder, commands in BLOCK.findall(page.read_text(encoding="utf-8")):
            key = name, folder or "."
            found[key] = found.get(key, "") + commands
    return found


SESSIONS = sessions()
#: Those with Go programs are run by `tests-integration/test_join_go_micro.py`.
IN_PYTHON = [session for session in SESSIONS if not (ROOT / session[1] / "go.mod").exists()]


@pytest.mark.timeout(180)  # some start Kafka or RabbitMQ
@pytest.mark.parametrize("session", IN_PYTHON, ids="-".join)
def test_commands_print_what_the_page_says(
    session: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = ROOT if session[1] == "." else copied(ROOT / session[1], tmp_path)
    commands = SESSIONS[session]
    play(commands, folder, surroundings() | addresses(commands, request.getfixturevalue("server")))


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "flags", ["nats --broker_nats_jetstream", "rabbitmq --broker_rabbitmq_durable", "kafka"], ids=lambda flags: flags
)
def test_dead_letters_are_read_and_sent_back_on_other_brokers(
    flags: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (session,) = (session for session in SESSIONS if session[1] == DEAD_LETTERS)
    commands = SESSIONS[session].replace("--broker=redis", f"--broker={flags}")
    assert flags in commands
    folder = copied(ROOT / DEAD_LETTERS, tmp_path)
    play(commands, folder, surroundings() | addresses(commands, request.getfixturevalue("server")))


def addresses(commands: str, backend: Callable[[str], NativeServer]) -> dict[str, str]:
    """Variables with the addresses of the servers that commands choose."""
    chosen = {(kind, name) for kind, name in CHOICE.findall(commands) if name in SERVERS}
    assert len(chosen) == len(dict(chosen)), "one session has one registry, one transport and one broker"
    return {f"MICRO_{kind.upper()}_ADDRESS": backend(name).address for kind, name in chosen}


def play(commands: str, folder: Path, environment: dict[str, str]) -> None:
    """Run the commands of a session, and compare what they print."""
    with ExitStack() as stack:
        servers: list[ExitStack] = []
        for command, printed in COMMAND.findall(commands):
            if command.endswith("&"):
                servers.append(stack.enter_context(ExitStack()))
                servers[-1].enter_context(server(command.removesuffix("&"), folder, environment))
            elif command.startswith("kill %"):
                servers[int(command.removeprefix("kill %")) - 1].close()
            else:
                actual = output(command, folder, environment)
                assert matches(printed, actual), f"{command} printed:\n{actual}"


@pytest.mark.parametrize("folder", TESTED, ids=lambda folder: folder.relative_to(SNIPPETS).as_posix())
def test_tests_pass(folder: Path, tmp_path: Path) -> None:
    inner = folder.relative_to(SNIPPETS)
    project = copied(SNIPPETS / inner.parts[0], tmp_path) / Path(*inner.parts[1:])
    output(f"{sys.executable} -m pytest -q -W error {project}", project, surroundings())


def test_every_snippet_is_run() -> None:
    programs = {path.parent for path in SNIPPETS.rglob("*.py")}
    run = {*TESTED, *(ROOT / folder for _, folder in SESSIONS)}
    assert [folder for folder in programs if run.isdisjoint((folder, *folder.parents))] == []


def copied(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place / folder.name, ignore=LEFT_OUT)
    return place / folder.name


def surroundings() -> dict[str, str]:
    """An environment of its own: this Python, loopback only, and a domain in which nobody else is found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MICRO_", "PYTEST_", "COV_"))}
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MICRO_SERVER_ADDRESS": "127.0.0.1:0",
        "MICRO_REGISTRY_MDNS_INTERFACES": "127.0.0.1",
        "MICRO_REGISTRY_MDNS_DOMAIN": f"t{uuid.uuid4().hex[:12]}",
        "MICRO_DRAIN_DELAY": "0",
    }


@contextmanager
def server(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a server until the context ends; it must then end in good order."""
    process = subprocess.Popen(
        f"exec {command}", shell=True, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    log = ""
    try:
        while "service started" not in log:
            line = process.stderr.readline()
            assert line, f"{command} ended: {log}"
            log += line
        yield
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, log + rest


def output(command: str, folder: Path, environment: dict[str, str]) -> str:
    """What a command prints; it must succeed."""
    if command.startswith("hatch run "):
        command = HATCH[command.removeprefix("hatch run ")].replace("{args}", "")
    result = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def matches(printed: str, actual: str) -> bool:
    """Whether `actual` is what the page says; `...` stands for anything within a line."""
    pattern = re.escape(printed).replace(re.escape("..."), r"[^\n]*")
    return re.fullmatch(pattern, actual) is not None
