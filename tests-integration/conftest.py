"""Programs as processes of their own, which find each other over multicast DNS on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pymicro import Service

PROGRAMS = Path(__file__).parent / "programs"

#: Seconds after which something that should have come is missing.
PATIENCE = 20.0


@pytest.fixture
def name() -> str:
    """A service name that nobody else has."""
    return f"node-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def environment(name: str) -> dict[str, str]:
    """Loopback only, free ports, and an mDNS domain that nobody else is in; the node's name for the programs."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MICRO_")}
    return kept | {
        "NODE_NAME": name,
        "PYTHONWARNINGS": "error",
        "MICRO_SERVER_ADDRESS": "127.0.0.1:0",
        "MICRO_REGISTRY_MDNS_INTERFACES": "127.0.0.1",
        "MICRO_REGISTRY_MDNS_DOMAIN": f"t{uuid.uuid4().hex[:12]}",
    }


class Program:
    """A running process and what it has written.

    Attributes:
        pid: its process id.
        printed: lines of stdout.
        log: lines of stderr.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self.printed: list[str] = []
        self.log: list[str] = []
        self._process = process
        self._news = asyncio.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(process.stdout, self.printed)),
            asyncio.create_task(self._read(process.stderr, self.log)),
        ]

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode().rstrip("\n"))
            async with self._news:
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    async def says(self, text: str, times: int = 1) -> str:
        """The line with `text` in it, the so many-th one; fails when the program ends without it."""
        async with asyncio.timeout(PATIENCE), self._news:
            while len(found := [line for line in (*self.printed, *self.log) if text in line]) < times:
                assert not all(reader.done() for reader in self._readers), "\n".join(self.log)
                await self._news.wait()
        return found[times - 1]

    async def address(self) -> str:
        """Where it listens, once it does."""
        fields = (await self.says("service started")).split()
        return next(field for field in fields if field.startswith("address=")).removeprefix("address=")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """The exit status, once the process has ended by itself."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._readers)
            return await self._process.wait()

    async def kill(self) -> None:
        """End it now, if it has not ended."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()


Start = Callable[..., Awaitable[Program]]


@pytest.fixture
async def start(environment: dict[str, str]) -> AsyncIterator[Start]:
    """Starts a program, by its name in `programs` or by its path; flags follow. All are killed after the test.

    `group` makes it the leader of a process group, as a shell does.
    """
    running: list[Program] = []

    async def start(
        program: str | Path, *flags: str, python: str | Path = sys.executable, group: bool = False, **variables: str
    ) -> Program:
        process = await asyncio.create_subprocess_exec(
            python,
            program if str(program).startswith("-") else PROGRAMS / program,
            *flags,
            env=environment | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            process_group=0 if group else None,
        )
        running.append(Program(process))
        return running[-1]

    yield start
    for program in running:
        await program.kill()


@pytest.fixture
async def caller(environment: dict[str, str]) -> AsyncIterator[Service]:
    """A service in this process that serves nothing and calls the others."""
    async with Service("caller", environ=environment) as service:
        yield service
