"""Runs the commands in the examples' pages, each example in a copy of its folder, and compares what they print.

In a block marked `console`, a line that begins with `$` is a command and the lines after it are what it prints. A
command that ends in `&` is a server; the next command is run once it has started.

The pages say `--registry=etcd` and no address: that of a server which the test starts is given as a variable.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pymicro_testing.servers import SERVERS, NativeServer

PAGES = sorted(Path(__file__).parent.glob("*/README.md"))
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
CHOICE = re.compile(r"--(registry|transport|broker)=(\w+)")
PORT = "9090"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
@pytest.mark.timeout(180)  # some start Kafka and RabbitMQ
def test_the_commands_print_what_the_page_says(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = copied(page.parent, tmp_path)
    blocks = BLOCK.findall((folder / "README.md").read_text())
    assert blocks, "the page shows no command"
    backend: Callable[[str], NativeServer] = request.getfixturevalue("server")
    common = surroundings()
    with ExitStack() as servers:
        for command, printed in COMMAND.findall("".join(blocks)):
            environment = common | addresses(command, backend)
            if command.endswith("&"):
                servers.enter_context(server(command.removesuffix("&"), folder, environment))
            else:
                assert output(command, folder, environment) == printed, command


def addresses(command: str, backend: Callable[[str], NativeServer]) -> dict[str, str]:
    """Variables with the addresses of the servers that a command chooses."""
    chosen = [(kind, name) for kind, name in CHOICE.findall(command) if name in SERVERS]
    return {f"MICRO_{kind.upper()}_ADDRESS": backend(name).address for kind, name in chosen}


def test_every_example_has_a_page() -> None:
    programs = {path.parent for path in Path(__file__).parent.glob("*/*.py")}
    assert programs == {page.parent for page in PAGES}


def copied(example: Path, place: Path) -> Path:
    """A copy in which the fixed port is a free one."""
    folder = place / example.name
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns(".*_cache", "__pycache__", "*_pb2.py*"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for file in (file for file in folder.iterdir() if file.is_file()):
        file.write_text(file.read_text().replace(PORT, port))
    return folder


def surroundings() -> dict[str, str]:
    """An environment of its own: this Python, loopback only, and a domain in which nobody else is found."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MICRO_")}
    return kept | {
        "PATH": programs,
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
    result = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
