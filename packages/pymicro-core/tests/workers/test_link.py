"""A worker in this process, and a supervisor that is played by the test."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import msgspec
import pytest

from pymicro import Service
from pymicro.transport import Accept, Listener, MemoryTransport
from pymicro.workers import Handover

STATS = {
    "timestamp": 1,
    "started": 1,
    "uptime": 1,
    "memory": 1,
    "threads": 1,
    "gc": 1,
    "requests": 7,
    "errors": 0,
    "in_flight": 0,
    "streams": 0,
    "connections": 0,
}


class Doors(MemoryTransport):
    """Takes sockets, and listens on none of them."""

    takes_socket = True

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    async def listen(self, address: str, accept: Accept, *, sock: socket.socket | None = None) -> Listener:
        assert sock is not None
        sock.close()
        listener = await super().listen("", accept)
        where = listener.addresses[0]
        self.open.append(where)
        inner = listener.stop_accepting

        async def stop_accepting() -> None:
            if where in self.open:
                self.open.remove(where)
            await inner()

        listener.stop_accepting = stop_accepting  # type: ignore[method-assign]
        return listener


class Supervisor:
    """The other end of a worker's channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")

    def hears(self, type: str) -> dict[str, Any]:
        """The next message, which must be of this type."""
        message: dict[str, Any] = msgspec.json.decode(self._file.readline())
        assert message["type"] == type
        return message

    def says(self, type: str, **fields: Any) -> None:
        self.sock.sendall(msgspec.json.encode({"type": type, **fields}) + b"\n")

    def close(self) -> None:
        self._file.close()
        self.sock.close()


class Worker:
    """Runs a worker in the main thread and plays its supervisor in another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        handover = Handover(
            slot=1,
            id="x-1",
            control=theirs.detach(),
            sockets=tuple(door.detach() for door in doors),
            address="127.0.0.1:5",
        )
        monkeypatch.setattr("pymicro.workers._handover._taken", [handover])
        self.doors = Doors()
        self.supervisor = Supervisor(ours)
        stack.callback(self.supervisor.close)
        self.service = Service("many", environ={}, transport=self.doors, registry="memory", drain_delay=0)
        self.failure: BaseException | None = None

        service = self.service

        class Node:
            async def stop(self) -> None:
                service.request_stop()

        self.service.handle(Node())
        self.loop: asyncio.AbstractEventLoop | None = None

        async def probe() -> None:
            self.loop = asyncio.get_running_loop()

        self.service.check("loop", probe)

    def call(self, endpoint: str) -> Any:
        """Call the worker itself, from the supervisor's thread."""
        assert self.loop is not None
        work = self.service.client.call("many", endpoint, {}, address=self.doors.open[0])
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def run(self, script: Callable[[Supervisor], None]) -> int:
        """The exit status."""
        thread = threading.Thread(target=self._script, args=(script,))
        thread.start()
        self.service.init([])
        try:
            self.service.run()
        except SystemExit as end:
            return int(str(end.code))
        finally:
            thread.join()
            if self.failure is not None:
                raise self.failure
        return 0

    def _script(self, script: Callable[[Supervisor], None]) -> None:
        try:
            script(self.supervisor)
        except BaseException as failure:
            self.failure = failure
            self.supervisor.close()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    with ExitStack() as stack:
        yield Worker(monkeypatch, stack)


def begin(supervisor: Supervisor) -> None:
    assert supervisor.hears("Ready")["record"]["nodes"][0]["address"] == "127.0.0.1:5"
    supervisor.hears("Started")
    supervisor.says("Accept", slots=[1])


def end(supervisor: Supervisor, *, replaced: bool = False) -> None:
    supervisor.says("Drain", replaced=replaced)
    supervisor.hears("Unready")


def settled(supervisor: Supervisor) -> dict[str, Any]:
    """The worker's own report, which comes after whatever it was told before."""
    supervisor.says("Inquiry")
    return supervisor.hears("Report")


def test_it_says_what_it_would_register_and_ends_when_told(worker: Worker) -> None:
    def script(supervisor: Supervisor) -> None:
        begin(supervisor)
        end(supervisor)

    assert worker.run(script) == 0
    assert worker.doors.open == []


def test_it_accepts_for_the_slots_that_it_is_given(worker: Worker) -> None:
    def script(supervisor: Supervisor) -> None:
        begin(supervisor)
        settled(supervisor)
        assert len(worker.doors.open) == 1
        supervisor.says("Accept", slots=[1, 2])
        settled(supervisor)
        assert len(worker.doors.open) == 2
        supervisor.says("Accept", slots=[2])
        settled(supervisor)
        assert len(worker.doors.open) == 1
        end(supervisor, replaced=True)

    assert worker.run(script) == 0
    assert worker.doors.open == []


def test_it_asks_how_all_are(worker: Worker) -> None:
    def script(supervisor: Supervisor) -> None:
        begin(supervisor)
        assert settled(supervisor)["health"] == {"status": "ok", "reasons": {}}
        asked: list[Any] = []
        caller = threading.Thread(target=lambda: asked.append(worker.call("Debug.Stats")))
        caller.start()
        supervisor.hears("Question")
        supervisor.says("Answer", health={"status": "ok"}, stats={**STATS, "workers": 3})
        caller.join()
        assert (asked[0]["requests"], asked[0]["workers"]) == (7, 3)
        end(supervisor)

    assert worker.run(script) == 0


def test_a_supervisor_that_does_not_answer_is_a_fault(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pymicro.workers._link._PATIENCE", 0.01)

    def script(supervisor: Supervisor) -> None:
        begin(supervisor)
        settled(supervisor)
        assert worker.call("Debug.Health") == {"status": "failing", "reasons": {"supervisor": "does not answer"}}
        supervisor.hears("Question")
        end(supervisor)

    assert worker.run(script) == 0


@pytest.mark.parametrize("bad", [b"", b"not json\n", b'{"type":"Unknown"}\n', b"x" * 5_000_000])
def test_it_ends_when_the_supervisor_is_gone(worker: Worker, bad: bytes, caplog: pytest.LogCaptureFixture) -> None:
    def script(supervisor: Supervisor) -> None:
        begin(supervisor)
        with suppress(ConnectionError):  # the worker does not read to the end
            supervisor.sock.sendall(bad)
        if not bad:
            supervisor.sock.shutdown(socket.SHUT_WR)

    assert worker.run(script) == 0
    assert "the supervisor is gone" in caplog.text


def test_signals_are_the_supervisor_s_business(worker: Worker) -> None:
    def script(supervisor: Supervisor) -> None:
        begin(supervisor)
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert settled(supervisor)["health"]["status"] == "ok"
        os.kill(os.getpid(), signal.SIGTERM)
        supervisor.hears("Leaving")
        os.kill(os.getpid(), signal.SIGTERM)
        settled(supervisor)
        end(supervisor, replaced=True)

    assert worker.run(script) == 0


def test_a_program_that_stops_itself_stops_all(worker: Worker) -> None:
    def script(supervisor: Supervisor) -> None:
        begin(supervisor)
        settled(supervisor)
        worker.call("Node.Stop")
        supervisor.hears("Stop")
        end(supervisor)

    assert worker.run(script) == 0


def test_only_the_first_service_that_serves_takes_the_handover(worker: Worker) -> None:
    def script(supervisor: Supervisor) -> None:
        begin(supervisor)
        end(supervisor)

    async def main() -> None: ...

    other = Service("other", environ={}, transport="memory", registry="memory")
    other.init([])
    other.run(main)
    assert worker.run(script) == 0
    other.run(main)
