"""Programs besides Python that some peers need: found, built and started here."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_HERE = Path(__file__).parent
#: What is built is kept here, outside version control.
CACHE = _HERE / ".cache"
_GO = _HERE / "go"
#: Not on everybody's PATH, yet where distributions put servers.
_SERVERS = ("/usr/sbin", "/usr/local/sbin")
_START = 10.0


class MissingError(Exception):
    """A program is not there; the text says how to get it."""


def find(program: str) -> Path:
    """Where `nats-server` or `go` is.

    Raises:
        MissingError: it is not installed.
    """
    found = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *_SERVERS)))
    if found is None:
        get = {
            "go": "Go 1.24 or newer is needed, from https://go.dev",
            "nats-server": "apt-get install nats-server, or https://nats.io",
        }
        raise MissingError(f"there is no {program} on this machine: {get[program]}")
    return Path(found)


def version(program: str) -> str:
    """What the program says of its version, in one word; for `go` also the version of Go Micro."""
    flag = "version" if program == "go" else "--version"
    said = subprocess.run([str(find(program)), flag], capture_output=True, text=True, check=True).stdout.split()
    if program != "go":
        return said[-1].removeprefix("v")
    micro = next(line for line in (_GO / "go.mod").read_text().splitlines() if "go-micro.dev" in line)
    return f"{said[2].removeprefix('go')}, {' '.join(micro.split()[-2:])}"


def go_greeter() -> Path:
    """The greeter of `go/`, built if it is not there yet; the first time this takes a minute.

    Raises:
        MissingError: Go is not installed, or does not build it.
    """
    go = str(find("go"))
    sources = sorted(path for path in _GO.iterdir() if path.suffix in {".go", ".mod", ".sum"})
    told = subprocess.run([go, "version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(told + b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    target = CACHE / f"greeter-{digest}"
    if not target.exists():
        CACHE.mkdir(exist_ok=True)
        command = [go, "build", "-mod=readonly", "-buildvcs=false", "-o", str(target), "."]
        built = subprocess.run(command, cwd=_GO, capture_output=True, text=True)
        if built.returncode:
            raise MissingError(f"Go does not build {_GO}:\n{built.stderr}")
    return target


@asynccontextmanager
async def nats_server(cores: tuple[int, ...]) -> AsyncIterator[tuple[str, int]]:
    """A NATS server on loopback; gives its URL and process id.

    Args:
        cores: that it may use; empty for all.
    """
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        *(find("nats-server"), "-a", "127.0.0.1", "-p", str(port)),
        stderr=subprocess.DEVNULL,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,  # before it starts threads
    )
    try:
        await _answers(port)
        yield f"nats://127.0.0.1:{port}", process.pid
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def _answers(port: int) -> None:
    """Returns when the server says hello."""
    async with asyncio.timeout(_START):
        while True:
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    if await reader.readline():
                        return
                finally:
                    writer.close()
            await asyncio.sleep(0.01)
