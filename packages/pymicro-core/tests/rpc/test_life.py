"""Starting, stopping, signals and threads at awkward moments."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from pymicro import Service, errors
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.registry import MemoryRegistry
from pymicro.transport import Accept, Listener, MemoryTransport, Socket
from pymicro_testing import no_leaks

Make = Callable[..., Service]


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until something holds that nothing announces."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0)


class Echo:
    async def say(self, text: str) -> str:
        return text


class Held(MemoryRegistry):
    """Registers when it is let."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()

    async def register(self, service: Any, *, ttl: float) -> Any:
        self.reached.set()
        await self.gate.wait()
        return await super().register(service, ttl=ttl)


def alone(registry: Any = "memory", **keywords: Any) -> Service:
    one = Service("echo", environ={}, registry=registry, transport="memory", broker="memory", drain_delay=0, **keywords)
    one.handle(Echo())
    return one


async def test_stopping_a_service_that_starts_stops_it() -> None:
    async with no_leaks():
        registry = Held()
        one = alone(registry)
        start = asyncio.create_task(one.start())
        await registry.reached.wait()
        stop = asyncio.create_task(one.stop())
        await asyncio.sleep(0)
        registry.gate.set()
        await asyncio.wait_for(asyncio.gather(start, stop), 3)
        assert (await one.health()).status == "stopped"
        assert one.client.loop is None


async def test_two_that_stop_both_wait_for_the_end(service: Make) -> None:
    running, gate = asyncio.Event(), asyncio.Event()

    class Slow:
        async def wait(self) -> str:
            running.set()
            await gate.wait()
            return "done"

    slow = service("slow", Slow())
    await slow.start()
    async with service("caller") as caller:
        call = asyncio.create_task(caller.client.call("slow", "Slow.Wait"))
        await running.wait()
        stops = [asyncio.create_task(slow.stop()) for _ in range(2)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not any(stop.done() for stop in stops)
        with pytest.raises(errors.UsageError):
            await slow.start()
        gate.set()
        assert await call == "done"
        await asyncio.gather(*stops)
        async with slow:
            assert (await slow.health()).status == "ok"


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    async with no_leaks():
        registry = Held()
        one = alone(registry)
        start = asyncio.create_task(one.start())
        await registry.reached.wait()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        await one.stop()
        assert one.client.loop is None


async def test_a_start_that_fails_leaves_nothing(service: Make) -> None:
    async with no_leaks(), service("echo", Echo(), server_address="memory:77"):
        other = service("other", Echo(), server_address="memory:77")
        for _ in range(2):
            with pytest.raises(errors.ConfigurationError, match="in use"):
                await other.start()
            await other.stop()


async def test_a_registry_that_fails_at_the_end_does_not_cut_calls_off(mesh: Any) -> None:
    class Failing(MemoryRegistry):
        async def register(self, service: Any, *, ttl: float) -> Any:
            registration = await super().register(service, ttl=ttl)
            inner = registration.aclose

            async def fail() -> None:
                await inner()
                raise errors.BackendUnavailable("gone")

            registration.aclose = fail  # type: ignore[method-assign]
            return registration

    running, gate = asyncio.Event(), asyncio.Event()

    class Slow:
        async def wait(self) -> str:
            running.set()
            await gate.wait()
            return "done"

    one = alone(lambda build: Failing(None, build, catalog=mesh.catalog))
    one.handle(Slow())
    await one.start()
    call = asyncio.create_task(one.client.call("echo", "Slow.Wait"))
    await running.wait()
    stop = asyncio.create_task(one.stop())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not stop.done()
    gate.set()
    assert await call == "done"
    await stop


# signals


def run(program: str, *, signals: list[float], timeout: float = 10) -> tuple[int, str]:
    """Run a program; `signals` are seconds after "ready" at which it gets SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "ready\n":
            break
    for after in signals:
        time.sleep(after)
        process.send_signal(signal.SIGTERM)
    try:
        rest, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        rest, _ = process.communicate()
        return -1, "".join(lines) + rest
    return process.returncode, "".join(lines) + rest


SERVICE = """
import asyncio, signal, sys, time
from pymicro import Service
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.registry import MemoryRegistry
from pymicro.transport import Accept, Listener, MemoryTransport, Socket
sys.argv = ["program"]
def make(registry="memory", **keywords):
    keywords |= {"environ": {}, "registry": registry, "transport": "memory", "broker": "memory", "drain_delay": 0}
    return Service("echo", **keywords)
class Echo:
    async def say(self, text: str) -> str:
        return text
"""


def program(text: str) -> str:
    return SERVICE + textwrap.dedent(text)


def test_a_signal_ends_a_start_that_hangs() -> None:
    code, out = run(
        program("""
        class Hanging(MemoryRegistry):
            async def register(self, service, *, ttl):
                print("ready")
                await asyncio.Event().wait()
        one = make(Hanging())
        one.handle(Echo())
        one.run()
        print("after")
        """),
        signals=[0.1],
    )
    assert (code, out) == (0, "ready\nafter\n")


def test_a_second_signal_ends_a_main_that_does_not_end() -> None:
    code, out = run(
        program("""
        async def main():
            print("ready")
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(60)
        make().run(main)
        print("after")
        """),
        signals=[0.1, 0.2],
    )
    assert code == 1, out
    assert "Traceback" not in out
    assert "after" not in out.splitlines()


def test_run_gives_the_signal_handlers_back() -> None:
    code, out = run(
        program("""
        def mine(*_): print("mine")
        signal.signal(signal.SIGTERM, mine)
        before = signal.getsignal(signal.SIGINT)
        async def main(): pass
        make().run(main)
        print("ready")
        assert signal.getsignal(signal.SIGTERM) is mine, signal.getsignal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is before
        """),
        signals=[],
    )
    assert code == 0, out


def test_a_thread_that_does_not_return_does_not_keep_the_program() -> None:
    code, out = run(
        program("""
        class Stuck:
            def wait(self) -> None:
                print("ready")
                time.sleep(60)
        one = make(shutdown_timeout=0.2)
        one.handle(Stuck())
        async def main():
            await one.client.call("echo", "Stuck.Wait")
        one.run(main)
        print("after")
        """),
        signals=[0.1],
    )
    assert code == 0, out
    assert "Traceback" not in out, out


async def test_a_thread_that_returns_late_is_no_error(service: Make, caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()

    class Stuck:
        def wait(self) -> str:
            gate.wait(10)
            return "late"

    def work() -> None:
        async def main() -> None:
            one = alone(shutdown_timeout=0.0)
            one.handle(Stuck())
            async with one:
                with pytest.raises(errors.DeadlineExceeded):
                    await one.client.call("echo", "Stuck.Wait", timeout=0.05)

        asyncio.run(main())
        gate.set()

    await asyncio.to_thread(work)
    await asyncio.sleep(0.1)
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_a_plain_generator_that_does_not_return_meets_its_deadline(service: Make) -> None:
    gate = threading.Event()
    closed = threading.Event()

    class Stuck:
        def items(self) -> Iterator[int]:
            try:
                yield 1
                gate.wait(10)
                yield 2
            finally:
                closed.set()

    class Stub:
        def items(self) -> AsyncIterator[int]: ...

    async with service("stuck", Stuck()) as one:
        from pymicro import call_options

        with call_options(timeout=0.05), pytest.raises(errors.DeadlineExceeded):
            async for _ in one.client.stub("stuck", Stub, name="Stuck").items():
                pass
        await until(lambda: not one.server.in_flight)
        assert not closed.is_set()
        gate.set()
        assert await asyncio.to_thread(closed.wait, 5)


# the blocking portal


def test_threads_that_open_a_service_together_share_it() -> None:
    class Slow(MemoryRegistry):
        async def _open(self) -> None:
            await super()._open()
            await asyncio.sleep(0.01)

    for _ in range(2):
        stub: Any = alone(lambda build: Slow(None, build)).client.blocking.stub("echo", Echo)
        barrier = threading.Barrier(8)
        said: list[Any] = []

        def work(stub: Any = stub, barrier: threading.Barrier = barrier, said: list[Any] = said) -> None:
            barrier.wait()
            try:
                said.append(stub.say("x"))
            except Exception as error:
                said.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert said == ["x"] * 8


def test_a_service_that_fails_to_open_is_opened_again() -> None:
    failures = 1

    class Failing(MemoryRegistry):
        async def _open(self) -> None:
            nonlocal failures
            await super()._open()
            if failures:
                failures -= 1
                raise errors.BackendUnavailable("not yet")

    stub: Any = alone(lambda build: Failing(None, build)).client.blocking.stub("echo", Echo)
    with pytest.raises(errors.BackendUnavailable):
        stub.say("x")
    assert stub.say("x") == "x"


class Waiter:
    def __init__(self) -> None:
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def wait(self, text: str) -> str:
        self.asked.set()
        await self.gate.wait()
        return text


class Unhurried(MemoryTransport):
    """Its accepted sockets send refusals when they are let, as one does whose connection is busy."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.reached, self.gate = asyncio.Event(), asyncio.Event()

    async def listen(self, address: str, accept: Accept, **keywords: Any) -> Listener:
        async def unhurried(socket: Socket) -> None:
            send = socket.send

            async def later(message: Message) -> None:
                if "micro-error" in message.headers:
                    self.reached.set()
                    await self.gate.wait()
                await send(message)

            socket.send = later  # type: ignore[method-assign]
            await accept(socket)

        return await super().listen(address, unhurried, **keywords)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_stopping_waits_until_the_last_refusal_is_sent(mesh: Any) -> None:
    waiter, slow = Waiter(), Unhurried(network=mesh.network)
    names: Any = {"registry": "memory", "broker": "memory", "transport": lambda _: slow}
    one = Service("waiter", environ={}, drain_delay=0, **names)
    one.handle(waiter)
    request = Message(Headers({"Micro-Endpoint": "Waiter.Wait", "Content-Type": "application/json"}), b'"x"')
    async with asyncio.timeout(5), MemoryTransport(network=mesh.network) as caller:
        await one.start()
        assert one.server.node is not None
        first, second = [await caller.dial(one.server.node, timeout=5) for _ in range(2)]
        await first.send(request)
        await waiter.asked.wait()
        stop = asyncio.create_task(one.stop())
        await until(lambda: one.server.draining)
        await turns()  # with no delay it refuses soon
        await second.send(request)
        await slow.reached.wait()
        waiter.gate.set()
        assert json.loads((await first.recv()).body) == "x"
        await turns()  # time to close, for one that does not wait
        slow.gate.set()
        refusal = errors.from_wire((await second.recv()).headers["Micro-Error"])
        assert isinstance(refusal, errors.Unavailable)
        await stop
