"""A supervisor in this process, and real workers: programs whose transport has no sockets to hand down."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pymicro import Service
from pymicro.record import ServiceRecord
from pymicro.registry import MemoryRegistry, Registration

PROGRAM = """
import os, sys, time
from pymicro import Service

class Echo:
    async def say(self, text: str) -> str:
        return text

async def check() -> None:
    if os.path.exists("unhealthy"):
        raise ValueError("a file says so")

if os.path.exists("broken"):
    sys.exit(7)
service = Service("many", transport="memory", registry="memory", server_address=f"worker:{os.getpid()}", drain_delay=0)
service.handle(Echo())
service.check("file", check)
service.init([])
service.run(workers=2)
"""


class Catalog(MemoryRegistry):
    """Remembers the addresses that were ever registered, and those that are."""

    def __init__(self) -> None:
        super().__init__()
        self.ever: set[str] = set()
        self.now: set[str] = set()
        self.withdrawn = threading.Event()

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        registration = await super().register(service, ttl=ttl)
        address = service.nodes[0].address
        self.ever.add(address)
        self.now.add(address)
        inner = registration.aclose

        async def aclose() -> None:
            self.now.discard(address)
            self.withdrawn.set()
            await inner()

        registration.aclose = aclose  # type: ignore[method-assign]
        return registration


class Lines(logging.Handler):
    """What was logged; tests wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self._news = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._news:
            self.said.append((getattr(record, "event", ""), getattr(record, "fields", {})))
            self._news.notify_all()

    def wait(self, event: str, times: int = 1) -> dict[str, Any]:
        """The fields of the so many-th line of this kind."""
        with self._news:
            assert self._news.wait_for(lambda: len(self._found(event)) >= times, 20), self.said
            return self._found(event)[times - 1]

    def _found(self, event: str) -> list[dict[str, Any]]:
        return [fields for said, fields in self.said if said == event]


class Run:
    """One run of a supervisor in the main thread, while a script in another one does things to it."""

    def __init__(self, folder: Path, lines: Lines) -> None:
        self.folder = folder
        self.lines = lines
        self.catalog = Catalog()
        self.failure: BaseException | None = None
        self._others = children()  # servers that other tests have started

    def workers(self) -> set[int]:
        """Their process ids."""
        return children() - self._others

    def __call__(self, script: Callable[[], None] | None = None, **keywords: Any) -> int:
        """The exit status, after the script and a SIGTERM."""

        class Nothing:
            async def nothing(self) -> None: ...

        service = Service(
            "many", environ={}, transport="memory", registry=self.catalog, **{"drain_delay": 0, **keywords}
        )
        service.handle(Nothing())
        service.init([])
        thread = threading.Thread(target=self._script, args=(script,))
        thread.start()
        try:
            service.run(workers=2)
        except SystemExit as end:
            return int(str(end.code))
        finally:
            self.lines.emit(logging.makeLogRecord({"event": "ended"}))
            thread.join()
            if self.failure is not None:
                raise self.failure
        return 0

    def _script(self, script: Callable[[], None] | None) -> None:
        if script is None:
            return
        try:
            self.lines.wait("service started")
            script()
        except BaseException as failure:
            self.failure = failure
        finally:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-W", "error", "program.py"])
    lines = Lines()
    logging.getLogger("pymicro.service").addHandler(lines)
    yield Run(tmp_path, lines)
    logging.getLogger("pymicro.service").removeHandler(lines)


def children() -> set[int]:
    """What this process has started, and whose session is its own."""
    listed = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split()
    every = {int(text) for text in listed}
    for task in Path("/proc/self/task").iterdir():  # on Python 3.11's loop a thread may have started them
        every |= {int(text) for text in (task / "children").read_text().split()}
    return {pid for pid in every if os.getsid(pid) == pid}


def test_workers_without_sockets_are_a_node_each(run: Run) -> None:
    def script() -> None:
        assert {f"worker:{pid}" for pid in run.workers()} == run.catalog.now
        assert len(run.catalog.now) == 2

    assert run(script) == 0
    assert run.catalog.now == set()
    assert run.workers() == set()


def test_a_worker_that_dies_is_another_node_when_it_is_back(run: Run) -> None:
    def script() -> None:
        dead, alive = sorted(run.workers())
        os.kill(dead, signal.SIGKILL)
        assert run.lines.wait("worker ended")["status"] == "SIGKILL"
        run.lines.wait("worker started again")
        (successor,) = run.workers() - {alive}
        assert run.catalog.ever == {f"worker:{pid}" for pid in (dead, alive, successor)}
        assert f"worker:{dead}" not in run.catalog.now

    assert run(script) == 0


def test_sighup_replaces_every_worker(run: Run) -> None:
    def script() -> None:
        before = run.workers()
        os.kill(os.getpid(), signal.SIGHUP)
        run.lines.wait("workers replaced")
        assert run.workers().isdisjoint(before)
        assert len(run.workers()) == 2

    assert run(script) == 0
    assert len(run.catalog.ever) == 4


@pytest.mark.parametrize(("fault", "says"), [("broken", "ended with 7"), ("unhealthy", "is not healthy")])
def test_a_replacement_that_fails_changes_nothing(run: Run, fault: str, says: str) -> None:
    def script() -> None:
        before = run.workers()
        (run.folder / fault).touch()
        os.kill(os.getpid(), signal.SIGHUP)
        fields = run.lines.wait("workers not replaced")
        assert says in fields["error"]
        assert fields["worker"] == 1
        (run.folder / fault).unlink()
        os.kill(os.getpid(), signal.SIGHUP)
        run.lines.wait("workers replaced")
        assert run.workers().isdisjoint(before)

    assert run(script) == 0


def test_a_program_that_ends_before_it_serves_ends_everything(run: Run) -> None:
    (run.folder / "broken").touch()
    assert run() == 7
    assert run.lines.wait("worker ended before it served")["status"] == "7"
    assert run.workers() == set()
    assert run.catalog.ever == set()


def test_a_program_that_does_nothing_is_told_so(run: Run) -> None:
    (run.folder / "program.py").write_text("")
    assert run() == 1
    assert run.lines.wait("worker ended before it served")["status"] == "0"


def test_unhealthy_workers_run_and_are_not_registered(run: Run) -> None:
    (run.folder / "unhealthy").touch()

    def script() -> None:
        assert "node" not in run.lines.wait("service started")
        assert len(run.workers()) == 2

    assert run(script) == 0
    assert run.catalog.ever == set()


def test_a_worker_that_hangs_is_cut_off_by_a_second_signal(run: Run) -> None:
    def script() -> None:
        for pid in run.workers():
            os.kill(pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert run.catalog.withdrawn.wait(10)

    assert run(script, drain_delay=60) == 1
    assert run.workers() == set()


def test_a_program_that_cannot_be_run_again_is_told_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "orig_argv", [])
    assert run() == 2
    assert "does not know how it was run" in capsys.readouterr().err


def test_a_platform_that_cannot_do_it_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("socket.SO_REUSEPORT")
    assert run() == 2
    assert "no SO_REUSEPORT" in capsys.readouterr().err


def test_a_machine_without_room_for_a_process_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spawn = asyncio.create_subprocess_exec

    async def full(*arguments: Any, **keywords: Any) -> Any:
        raise BlockingIOError("no more processes")

    def script() -> None:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", full)
        os.kill(os.getpid(), signal.SIGHUP)
        assert run.lines.wait("workers not replaced")["error"] == "no more processes"
        dead, alive = sorted(run.workers())
        os.kill(dead, signal.SIGKILL)
        run.lines.wait("cannot start a worker")
        monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn)
        run.lines.wait("worker started again")
        assert alive in run.workers()
        assert len(run.workers()) == 2

    assert run(script) == 0
