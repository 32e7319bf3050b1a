"""One service in several worker processes: how they share calls, die, are replaced, and stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from pymicro import Service, endpoint, errors
from pymicro_registry_mdns import MdnsOptions
from pymicro_registry_mdns._registry import MdnsRegistry

PROGRAMS = Path(__file__).parent / "programs"

#: Calls under way at a time, each for so many seconds.
CALLERS = 16
WORK = 0.002

#: Lets a supervisor and its workers stop without waiting for callers to move.
AT_ONCE = "--drain_delay=0"


#: Runs Python with the given arguments in a session whose terminal is the first one.
IN_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it, as nohup does
os.setsid()
os.open(sys.argv[1], os.O_RDWR)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Node(Protocol):
    async def work(self, seconds: float) -> int: ...

    @endpoint(idempotent=True)
    async def look(self, seconds: float) -> int: ...

    async def block(self, seconds: float) -> int: ...

    async def stop(self) -> None: ...


class Load:
    """Calls without a pause.

    Attributes:
        answers: how often each process answered.
        failures: what calls raised.
    """

    def __init__(self, call: Callable[[float], Awaitable[int]]) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[Exception] = []
        self.stopped = False
        self._call = call
        self._news = asyncio.Condition()

    async def work(self) -> None:
        while not self.stopped:
            try:
                self.answers[await self._call(WORK)] += 1
            except Exception as error:
                self.failures.append(error)
            async with self._news:
                self._news.notify_all()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds after a call."""
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(true)

    async def more(self, calls: int) -> None:
        """Wait for so many further calls to end."""
        goal = self.answers.total() + len(self.failures) + calls
        await self.until(lambda: self.answers.total() + len(self.failures) >= goal)


@asynccontextmanager
async def load(call: Callable[[float], Awaitable[int]], callers: int = CALLERS) -> AsyncIterator[Load]:
    """Call all the time; at the end, wait for what is under way: nothing may hang."""
    running = Load(call)
    async with asyncio.timeout(40), asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(running.work())
        try:
            yield running
        finally:
            running.stopped = True


@pytest.fixture(params=["true", "false"], ids=["channels", "connections"])
async def caller(environment: dict[str, str], request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """A service that calls the others, over connections that carry many calls or one."""
    variables = environment | {"MICRO_TRANSPORT_HTTP_CHANNELS": request.param}
    async with Service("caller", environ=variables) as service:
        yield service


@pytest.fixture
async def prober(environment: dict[str, str]) -> AsyncIterator[Service]:
    """Asks for health and stats, each time over a connection of its own."""
    variables = environment | {"MICRO_TRANSPORT_HTTP_CHANNELS": "false", "MICRO_CLIENT_POOL_SIZE": "0"}
    async with Service("prober", environ=variables) as service:
        yield service


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
async def registry(environment: dict[str, str]) -> AsyncIterator[MdnsRegistry]:
    """What the programs register at."""
    options = MdnsOptions(domain=environment["MICRO_REGISTRY_MDNS_DOMAIN"], interfaces=("127.0.0.1",))
    async with MdnsRegistry(options) as registry:
        yield registry


@pytest.fixture
def workers(start: Any) -> Callable[..., Awaitable[Any]]:
    """Starts a service of two workers and waits until it serves."""

    async def workers(*flags: str, **variables: str) -> Any:
        program = await start("many.py", "--server_workers=2", *flags, **variables)
        await program.says("service started")
        return program

    return workers


# sharing


async def test_every_worker_gets_calls(workers: Any, prober: Service, name: str) -> None:
    program = await workers(AT_ONCE)
    stub = prober.client.stub(name, Node)
    answers = Counter([await stub.work(0) for _ in range(60)])
    assert set(answers) == set(children(program.pid))
    assert len(answers) == 2


async def test_they_are_one_node(workers: Any, environment: dict[str, str], name: str, registry: MdnsRegistry) -> None:
    program = await workers(AT_ONCE, "--server_id=a")
    (record,) = await registry.get_service(name)
    (node,) = record.nodes
    assert node.id == f"{name}-a"
    assert node.address == await program.address()
    assert node.metadata["workers"] == "2"


async def test_health_and_stats_are_of_all_workers(workers: Any, prober: Service, name: str) -> None:
    await workers(AT_ONCE)
    stub = prober.client.stub(name, Node)
    for _ in range(20):
        await stub.work(0)
    for _ in range(4):  # whichever worker is asked
        assert await prober.client.call(name, "Debug.Health", {}) == {"status": "ok", "reasons": {}}
        stats = await prober.client.call(name, "Debug.Stats", {})
        assert stats["workers"] == 2
        assert 20 <= stats["requests"] <= 40


async def test_health_names_the_worker_that_does_not_answer(workers: Any, caller: Service, name: str) -> None:
    program = await workers(AT_ONCE)
    answering = await caller.client.stub(name, Node).work(0)
    (other,) = {*children(program.pid)} - {answering}
    os.kill(other, signal.SIGSTOP)
    try:  # over the connection that there is: the kernel would give others to the one that sleeps
        health = await caller.client.call(name, "Debug.Health", {})
        stats = await caller.client.call(name, "Debug.Stats", {})
    finally:
        os.kill(other, signal.SIGCONT)
    assert health["status"] == "failing"
    assert [*health["reasons"].values()] == ["does not answer"]
    assert stats["workers"] == 1
    assert (await caller.client.call(name, "Debug.Health", {}))["status"] == "ok"


# dying


async def test_a_worker_that_dies_is_started_again(workers: Any, caller: Service, name: str) -> None:
    program = await workers(AT_ONCE)
    before = children(program.pid)
    async with load(caller.client.stub(name, Node).work) as calls:
        await calls.more(200)
        os.kill(before[0], signal.SIGKILL)
        assert "status=SIGKILL" in await program.says("worker ended")
        await program.says("worker started again")
        await calls.more(200)
    assert len(calls.failures) <= CALLERS
    for failure in calls.failures:
        assert isinstance(failure, errors.Unavailable)
        assert failure.executed == "maybe"
    after = children(program.pid)
    assert len(after) == 2
    assert before[1] in after
    assert before[0] not in after


async def test_a_dead_worker_leaves_no_call_waiting(workers: Any, prober: Service, name: str) -> None:
    """Its socket stays open for the successor, and meanwhile another worker accepts on it."""
    program = await workers(AT_ONCE)
    stub = prober.client.stub(name, Node)
    for times in range(1, 4):
        dead, alive = children(program.pid)
        os.kill(dead, signal.SIGKILL)
        await program.says("worker ended", times)
        async with asyncio.timeout(5):
            assert alive in {await stub.work(0) for _ in range(10)}
        await program.says("worker started again", times)


async def test_calls_that_may_be_repeated_survive_a_death(workers: Any, start: Any, caller: Service, name: str) -> None:
    program = await workers(AT_ONCE)
    await (await start("many.py", AT_ONCE)).says("service started")
    async with load(caller.client.stub(name, Node).look, callers=8) as calls:  # the client's budget repeats ten at once
        await calls.more(200)
        os.kill(children(program.pid)[0], signal.SIGKILL)
        await program.says("worker started again")
        await calls.more(200)
    assert calls.failures == []


async def test_workers_end_with_their_supervisor(workers: Any, name: str) -> None:
    program = await workers(AT_ONCE)
    program.signal(signal.SIGKILL)
    assert await program.ended() == -signal.SIGKILL  # which waits until the workers, too, have closed stderr
    assert sum("the supervisor is gone" in line for line in program.log) == 2


# replacing


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_workers_are_replaced_under_load_and_no_call_fails(
    workers: Any, caller: Service, name: str, tmp_path: Path, loop: str
) -> None:
    if loop == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError('not here')")
    program = await workers("--drain_delay=0.5s", PYTHONPATH=str(tmp_path))
    before = children(program.pid)
    async with load(caller.client.stub(name, Node).work) as calls:
        await calls.more(200)
        program.signal(signal.SIGHUP)
        await program.says("workers replaced")
        calls.answers.clear()
        await calls.more(200)
    assert calls.failures == []
    after = children(program.pid)
    assert len(after) == 2
    assert set(after).isdisjoint(before)
    assert set(calls.answers) <= set(after)


async def test_a_replacement_asked_for_during_another_comes_after_it(workers: Any) -> None:
    program = await workers(AT_ONCE)
    program.signal(signal.SIGHUP)
    await program.says("replacing workers")
    for _ in range(3):
        program.signal(signal.SIGHUP)
    await program.says("workers replaced", times=2)
    program.signal(signal.SIGTERM)
    assert await program.ended() == 0
    assert sum("workers replaced" in line for line in program.log) == 2


@pytest.mark.parametrize("fault", ["broken", "unhealthy", "exits"])
async def test_a_successor_that_fails_leaves_everything_as_it_was(
    workers: Any, prober: Service, name: str, tmp_path: Path, fault: str
) -> None:
    file = tmp_path / "fault"
    file.write_text("")
    program = await workers(AT_ONCE, "--register_interval=60s", NODE_FAULT=str(file))
    before = children(program.pid)
    file.write_text(fault)
    program.signal(signal.SIGHUP)
    assert "worker=1" in await program.says("workers not replaced")
    stub = prober.client.stub(name, Node)
    assert {await stub.work(0) for _ in range(40)} == set(before)
    file.write_text("")
    program.signal(signal.SIGHUP)
    await program.says("workers replaced")
    assert {await stub.work(0) for _ in range(40)} == set(children(program.pid))


async def test_one_worker_that_is_told_to_end_fails_no_call(workers: Any, caller: Service, name: str) -> None:
    program = await workers("--drain_delay=0.5s")
    async with load(caller.client.stub(name, Node).work) as calls:
        await calls.more(200)
        os.kill(children(program.pid)[0], signal.SIGTERM)
        await program.says("worker started again")
        await calls.more(200)
    assert calls.failures == []


# stopping


async def test_all_drain_and_no_call_fails(workers: Any, start: Any, caller: Service, name: str) -> None:
    program = await workers("--drain_delay=0.5s")
    other = await start("many.py", AT_ONCE)
    await other.says("service started")
    async with load(caller.client.stub(name, Node).work) as calls:
        await calls.until(lambda: other.pid in calls.answers and len(calls.answers) >= 2)
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0
        calls.answers.clear()
        await calls.more(100)
    assert calls.failures == []
    assert set(calls.answers) == {other.pid}
    await program.says("service stopped")
    assert "Traceback" not in "\n".join(program.log)


async def test_a_terminal_s_interrupt_drains_and_a_second_one_ends_at_once(
    start: Any, prober: Service, name: str
) -> None:
    program = await start("many.py", "--server_workers=2", "--drain_delay=60s", group=True)
    address = await program.address()
    work = asyncio.create_task(prober.client.stub(name, Node, address=address).work(60.0))
    await until_said(prober, name, "Debug.Stats", address, lambda stats: stats["in_flight"] == 2)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does, to everybody in it
    await until_said(prober, name, "Debug.Health", address, lambda health: health["status"] == "draining")
    assert not work.done()
    os.killpg(program.pid, signal.SIGINT)
    async with asyncio.timeout(5):
        assert await program.ended() == 1
    with pytest.raises(errors.Unavailable):
        await work
    assert "Traceback" not in "\n".join(program.log)


async def test_a_worker_that_does_not_end_is_cut_off(start: Any, prober: Service, name: str) -> None:
    program = await start("many.py", "--server_workers=2", AT_ONCE, "--shutdown_timeout=0")
    address = await program.address()
    work = asyncio.create_task(prober.client.stub(name, Node, address=address).work(60.0))
    await until_said(prober, name, "Debug.Stats", address, lambda stats: stats["in_flight"] == 2)
    os.kill(children(program.pid)[0], signal.SIGSTOP)
    program.signal(signal.SIGTERM)
    assert await program.ended() == 1
    with pytest.raises(errors.Unavailable):
        await work


async def test_the_program_can_stop_itself(workers: Any, prober: Service, name: str) -> None:
    program = await workers(AT_ONCE)
    await prober.client.stub(name, Node).stop()
    assert await program.ended() == 0
    await program.says("service stopped")


async def test_a_terminal_that_goes_away_ends_the_service(start: Any) -> None:
    """The kernel says so by SIGHUP, too, which must not be taken for the wish to go on with other workers."""
    master, terminal = os.openpty()
    try:
        many = str(PROGRAMS / "many.py")
        program = await start("-c", IN_TERMINAL, os.ttyname(terminal), many, "--server_workers=2", AT_ONCE)
        await program.says("service started")
    finally:
        os.close(terminal)
        os.close(master)
    assert await program.ended() == 0
    await program.says("service stopped")


# starting


async def test_a_mistake_that_workers_find_is_told_once(start: Any, tmp_path: Path) -> None:
    program = await start("many.py", "--server_workers=3", f"--tls_cert={tmp_path / 'none.pem'}", "--tls_key=none")
    assert await program.ended() == 2
    mistake, died = program.log
    assert mistake.startswith("error: ")
    assert "worker ended before it served worker=1" in died
    assert died.endswith("status=2")


async def test_a_port_in_use_is_told_once(start: Any) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # so that the kernel would share it
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        program = await start("many.py", "--server_workers=2", f"--server_address=127.0.0.1:{port}")
        assert await program.ended() == 2
    assert program.log == [f"error: port {port} on 127.0.0.1 is in use: choose another with --server_address"]


@pytest.mark.parametrize("how", ["module", "text"])
async def test_programs_are_run_again_as_they_were_run(
    start: Any, prober: Service, name: str, tmp_path: Path, how: str
) -> None:
    text = (PROGRAMS / "many.py").read_text()
    if how == "module":
        (tmp_path / "many_module.py").write_text(text)
        program = await start("-m", "many_module", "--server_workers=2", AT_ONCE, PYTHONPATH=str(tmp_path))
    else:
        program = await start("-c", text, "--server_workers=2", AT_ONCE)
    await program.says("service started")
    stub = prober.client.stub(name, Node)
    assert {await stub.work(0) for _ in range(40)} == set(children(program.pid))


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("Service('a').run(workers=2)", "error: a serves nothing: only servers have worker processes"),
        ("Service('a').run(main, workers=2)", "error: a runs a main(): only servers have worker processes"),
        ("Service('a').run(workers=-1)", "error: "),
    ],
)
async def test_what_has_no_use_for_workers_says_so(start: Any, program: str, complaint: str) -> None:
    running = await start("-c", f"from pymicro import Service\nasync def main(): pass\n{program}")
    assert await running.ended() == 2
    assert running.log[0].startswith(complaint)
    assert len(running.log) == 1


async def ask(prober: Service, name: str, endpoint: str, address: str) -> dict[str, Any]:
    """What a Debug endpoint says; nothing where nobody listens."""
    with suppress(errors.Unavailable):
        found: dict[str, Any] = await prober.client.call(name, endpoint, {}, address=address)
        return found
    return {}


async def until_said(
    prober: Service, name: str, endpoint: str, address: str, true: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """What a Debug endpoint says once that is as it should be."""
    async with asyncio.timeout(10):
        while not (found := await ask(prober, name, endpoint, address)) or not true(found):
            pass
    return found
