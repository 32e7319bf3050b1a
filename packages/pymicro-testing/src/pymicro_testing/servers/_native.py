"""A server that runs as a process of this machine: how it is started, asked, hurt and ended."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from pymicro_testing.faults import Outage, Server
from pymicro_testing.servers._certificates import Certificates
from pymicro_testing.servers._reaper import Reaper

HOST: Final = "127.0.0.1"
USERNAME: Final = "tester"
PASSWORD: Final = "p@ss:w/rd?%"  # what an address must quote

_PORTS: Final = range(20_000, 32_000)  # below those that a system gives to clients: a server keeps its own while down
_PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/local/go/bin")
_POLL: Final = 0.02
_ORDERLY: Final = 15.0  # seconds for an orderly end; then it is killed
_LOG_TAIL: Final = 4000


class MissingServerError(Exception):
    """The server is not installed; the text says how to get it."""


class ServerFailedError(Exception):
    """The server did not do what was asked of it; the text has the end of its log."""


class NativeServer(Server):
    """A server in a process group of its own, with its data in a temporary folder.

    Not safe for concurrent use. Each method returns when what it does has happened, and is bounded in time. A
    cancelled method leaves the server where it was; `start` brings it back, `close` always ends it.

    Args:
        tls: the files with which it speaks TLS, and only that, to clients that its authority certified. None: plain.
        credentials: refuse clients without user name and password.
        settings: what its configuration says besides, under the names that the server gives them.

    Attributes:
        name: what it is called, in `docker-compose.yml` too.
        port: where it listens on loopback, for as long as it exists.
        certificates: files for clients; None without TLS.
        username: empty where there is none.
        password: empty where there is none.
        folder: its data and its log.

    Raises:
        MissingServerError: it is not installed.
    """

    outages = frozenset({Outage.STOP, Outage.PAUSE, Outage.FORGET})

    name: ClassVar[str]
    large: ClassVar[bool] = False
    """Whether it takes so much memory that it ends with the tests of one folder."""
    patience: ClassVar[float] = 20.0
    """Seconds in which it must answer."""
    question: bytes = b""
    """What a client says to a server to find out whether it is there."""
    answer: ClassVar[re.Pattern[bytes]]
    """What a server says then that is ready."""
    known: ClassVar[tuple[str, str]] = (USERNAME, PASSWORD)
    """User name and password, if it was asked for some."""
    usual: ClassVar[tuple[str, str]] = ("", "")
    """User name and password, if it has some though it was asked for none."""
    greets_in_tls: ClassVar[bool] = True
    """Whether a connection begins with TLS, where TLS is spoken."""

    def __init__(
        self,
        *,
        tls: Certificates | None = None,
        credentials: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.program = self.find()
        self.certificates = tls
        self.credentials = credentials
        self.username, self.password = self.known if credentials else self.usual
        self.settings = dict(settings or {})
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"pymicro-{self.name}-"))
        Reaper.shared().watch_folder(self.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._fresh = True

    @classmethod
    @abstractmethod
    def find(cls) -> str:
        """Where its program is.

        Raises:
            MissingServerError: nowhere.
        """

    @classmethod
    def install(cls) -> str:
        """See `find`; gets what is missing if that takes nobody's leave. May take minutes.

        Raises:
            MissingServerError: it cannot be got like that.
        """
        return cls.find()

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What starts it, with its data in `self.data`; writes its configuration."""

    def environment(self) -> Mapping[str, str]:
        """Variables that it needs besides those of this process."""
        return {}

    async def prepare(self) -> None:
        """Do what a server without data needs once it answers."""

    @property
    def address(self) -> str:
        """`host:port`, the same for as long as it exists."""
        return f"{HOST}:{self.port}"

    @property
    def data(self) -> Path:
        """The folder that `forget` deletes."""
        return self.folder / "data"

    @property
    def running(self) -> bool:
        """Whether there is a process, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its process; 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Run and answer: at first, and after `kill`, `terminate` and `pause`. Idempotent.

        Raises:
            ServerFailedError: it ended, or did not answer in `patience` seconds.
        """
        if self.running:
            self._signal(signal.SIGCONT)
        else:
            await self.kill()  # what a dead leader may have left in its group
            self.data.mkdir(exist_ok=True)
            self._spawn()
        await self._wait(self._answers, self.patience, "did not answer")
        if self._fresh:
            await self.prepare()
            self._fresh = False

    async def stop(self) -> None:
        """The same as `kill`: the outage of conformance cases is the worst one."""
        await self.kill()

    async def kill(self) -> None:
        """End it as a crash does (SIGKILL). What it had written to its disk is kept. Idempotent."""
        self._signal(signal.SIGKILL)
        await self._until_gone()

    async def terminate(self) -> None:
        """End it orderly (SIGTERM), within 15 seconds; then it is killed. Idempotent."""
        process = self._process
        if process is not None and self.running:
            self._signal(signal.SIGCONT)
            process.terminate()
            with suppress(ServerFailedError):
                await self._wait(lambda: _true(process.poll() is not None), _ORDERLY, "did not end")
        await self.kill()

    async def restart(self) -> None:
        """Kill it and start it again: the same port, the same data."""
        await self.kill()
        await self.start()

    async def pause(self) -> None:
        """Stop it from running (SIGSTOP): it accepts connections and answers nothing until `resume` or `start`."""
        if self._process is None or not self.running:
            raise ServerFailedError(f"{self.name} does not run, so it cannot be paused")
        process = self._process.pid
        self._signal(signal.SIGSTOP)
        await self._wait(lambda: _true(_stopped(process)), self.patience, "did not pause")

    async def resume(self) -> None:
        """Let it run again (SIGCONT), and wait until it answers."""
        await self.start()

    async def forget(self) -> None:
        """Kill it, delete its data, and start it on the same port."""
        await self.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        self._fresh = True
        await self.start()

    async def close(self) -> None:
        """Kill it and delete everything. Idempotent."""
        await self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        Reaper.shared().forget_folder(self.folder)

    def tls_context(self) -> ssl.SSLContext | None:
        """What a client needs to connect; None without TLS."""
        return self.certificates.client_context() if self.certificates is not None else None

    async def asked(self, question: bytes, answer: re.Pattern[bytes], *, timeout: float = 1.0) -> bool:
        """Whether the server answers a question as expected, on a connection of its own, within so many seconds."""
        context = self.tls_context() if self.greets_in_tls else None
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(question, answer, context)
        except (OSError, TimeoutError):
            return False

    async def _exchange(self, question: bytes, answer: re.Pattern[bytes], context: ssl.SSLContext | None) -> bool:
        reader, writer = await asyncio.open_connection(HOST, self.port, ssl=context)
        try:
            writer.write(question)
            said = b""
            while not answer.search(said):
                if not (more := await reader.read(65536)):
                    return False
                said += more
            return True
        finally:
            writer.transport.abort()

    async def _answers(self) -> bool:
        if not self.running:
            raise ServerFailedError(self._report("ended instead of starting"))
        return await self.asked(self.question, self.answer)

    async def _until_gone(self) -> None:
        """Wait until the process is gone and nobody listens any more."""
        process, self._process = self._process, None
        if process is None:
            return
        await self._wait(lambda: _true(process.poll() is not None), self.patience, "survived")
        await self._wait(lambda: _true(not _listening(self.port)), self.patience, "still listens")
        Reaper.shared().forget_group(process.pid)

    async def _wait(self, happened: Callable[[], Awaitable[bool]], seconds: float, complaint: str) -> None:
        end = time.monotonic() + seconds
        while not await happened():
            if time.monotonic() >= end:
                raise ServerFailedError(self._report(f"{complaint} within {seconds:g} seconds"))
            await asyncio.sleep(_POLL)

    def _spawn(self) -> None:
        command = self.command()
        with (self.folder / "log").open("ab") as log:
            variables = os.environ | self.environment()
            self._process = Reaper.shared().launch(command, stdout=log, stderr=log, cwd=self.folder, env=variables)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _report(self, what: str) -> str:
        log = self.folder / "log"
        text = log.read_text("utf-8", "replace")[-_LOG_TAIL:] if log.exists() else ""
        return f"{self.name} at {self.address} {what}; its log ends:\n{text}"


def find_program(server: str, *programs: str, places: Sequence[str] = (), how: str) -> str:
    """Where the first of these programs is that exists.

    Raises:
        MissingServerError: none does; says `how` to get them.
    """
    if os.name != "posix":
        raise MissingServerError(f"{server}: the tests run servers on POSIX systems only")
    path = os.pathsep.join([*places, os.environ.get("PATH", ""), *_PLACES])
    for program in programs:
        if found := shutil.which(program, path=path):
            return found
    raise MissingServerError(f"{server}: no {' or '.join(programs)} here; {how}")


def free_port() -> int:
    """A port on loopback that nobody listens on, from a range out of which no client is given one."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((HOST, port))
                return port
    raise ServerFailedError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((HOST, port)) == 0


def _stopped(process: int) -> bool:
    if not hasattr(os, "waitid"):
        return True  # macOS before Python 3.13: the signal was sent, more cannot be known
    return os.waitid(os.P_PID, process, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None


async def _true(happened: bool) -> bool:
    return happened
