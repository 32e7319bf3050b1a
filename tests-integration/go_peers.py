"""Go Micro peers: the programs of `go/`, built with the Go on the machine, started and listened to."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from processes import Program

#: The versions of Go Micro, and the module of each in `go/`.
VERSIONS: Final = {"v5.8.0": "v5", "v4.11.0": "v4"}

#: What the sources call a thing, and what it is called in v4.
MOVED: Final = {
    **{
        f'"go-micro.dev/v5/{plugin}"': f'"github.com/go-micro/plugins/v4/{plugin}"'
        for plugin in ("registry/etcd", "registry/consul", "broker/nats", "broker/rabbitmq")
    },
    "go-micro.dev/v5/": "go-micro.dev/v4/",
    "registry.NewMDNSRegistry(": "registry.NewRegistry(",
    "broker.NewHttpBroker(": "broker.NewBroker(",
    "etcd.NewEtcdRegistry(": "etcd.NewRegistry(",
    "consul.NewConsulRegistry(": "consul.NewRegistry(",
    "nats.NewNatsBroker(": "nats.NewBroker(",
}

_GO: Final = Path(__file__).parent / "go"

#: Seconds for one build, which at first downloads Go Micro.
_BUILD: Final = 300

#: Seconds for which a program that nobody asked for is kept.
_KEPT: Final = 7 * 24 * 3600

#: Bytes that a line may have.
_LINE: Final = 16 * 1024 * 1024


def missing(reason: str) -> NoReturn:
    """What a test needs is not there: a skip, and where `CI` is set a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def go_command() -> str:
    """Where the Go on this machine is; see `missing`."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        missing("tests with Go Micro need Go 1.24 or newer, from https://go.dev")
    return found


def build(version: str, backends: bool = False) -> Path:
    """The program for this version of Go Micro, built unless the cache has it. With `backends`, it has those too.

    Safe when several sessions build at once: each builds in a folder of its own, and what was built appears whole.
    """
    go = go_command()
    module = _GO / "backends" / VERSIONS[version] if backends else _GO / VERSIONS[version]
    folders = [_GO / "peer", *([_GO / "backends", module] if backends else [])]
    files = {path.name: path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.glob("*.go"))}
    if version.startswith("v4."):
        files = {name: _moved(text) for name, text in files.items()}
    files |= {name: (module / name).read_text(encoding="utf-8") for name in ("go.mod", "go.sum")}
    told = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(json.dumps([told, files]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pymicro-go-peers"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"peer-{version}{'-backends' * backends}-{digest}"
    if not target.exists():
        _build(go, files, target)
        _forget(cache)
    os.utime(target)
    return target


def _moved(text: str) -> str:
    for name, in_v4 in MOVED.items():
        text = text.replace(name, in_v4)
    return text


def _build(go: str, files: dict[str, str], target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        subprocess.run(
            [go, "build", "-mod=readonly", "-trimpath", "-o", "peer", "."],
            cwd=folder,
            env=os.environ | {"GOFLAGS": "-buildvcs=false", "GOWORK": "off"},
            check=True,
            timeout=_BUILD,
        )
        Path(folder, "peer").replace(target)


def _forget(cache: Path) -> None:
    """Remove what was built from sources that are gone."""
    for path in cache.glob("peer-*"):
        if time.time() - path.stat().st_mtime > _KEPT:
            path.unlink(missing_ok=True)


def pattern(size: int) -> bytes:
    """So many bytes that can be recognised when pieces of them are lost or change places; the programs know it too."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class GoProgram(Program):
    """A running program of `go/`.

    Attributes:
        ready: its line with the event `ready`; a server's has its address.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__(process)
        self.ready: dict[str, Any] = {}
        self._taken: set[int] = set()
        self._numbers = itertools.count(1)

    async def event(self, event: str, **fields: Any) -> dict[str, Any]:
        """The next line with this event and these fields that was not given before; waits for it."""
        wanted = {"event": event, **fields}

        def find() -> dict[str, Any] | None:
            for at, line in enumerate(self.printed):
                if at not in self._taken and wanted.items() <= (said := json.loads(line)).items():
                    self._taken.add(at)
                    found: dict[str, Any] = said
                    return found
            return None

        return await self.until(find)

    def tell(self, **fields: Any) -> None:
        """Write a line of JSON to the program."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(fields).encode() + b"\n")

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Tell it to do something, and wait for what became of it."""
        return await self.answer(self.begin(do, **fields))

    def begin(self, do: str, **fields: Any) -> int:
        """Tell it to do something; the number that `answer` wants."""
        number = next(self._numbers)
        self.tell(do=do, number=number, **fields)
        return number

    async def answer(self, number: int) -> dict[str, Any]:
        """What became of an order."""
        return await self.event("done", number=number)


StartGo = Callable[..., Awaitable[GoProgram]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The limit of a test's time is for the test, not for the build before the first one, which has its own."""
    for item in items:
        if "go_peer" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60, func_only=True))


@pytest.fixture(scope="session", params=list(VERSIONS))
def go_version(request: pytest.FixtureRequest) -> str:
    """The version of Go Micro that the test is about."""
    version: str = request.param
    return version


@pytest.fixture(scope="session")
def go_peer(go_version: str) -> Path:
    """The program of `go/`, built for `go_version`."""
    return build(go_version)


@pytest.fixture
async def start_go(go_peer: Path, environment: dict[str, str]) -> AsyncIterator[StartGo]:
    """Starts the program with a subcommand and its flags, and waits until it is ready; kills all after the test."""
    running: list[GoProgram] = []

    async def start(command: str, *flags: str, ready: bool = True) -> GoProgram:
        process = await asyncio.create_subprocess_exec(
            go_peer,
            command,
            *flags,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE,
        )
        program = GoProgram(process)
        running.append(program)
        if ready:
            program.ready = await program.event("ready")
        return program

    yield start
    for program in running:
        await program.kill()


@pytest.fixture
async def go_server(start_go: StartGo) -> GoProgram:
    """A Go server with the handlers of `go/peer/handlers.go` and `streams.go`; only its address finds it."""
    return await start_go("server")
