"""Why handlers are not stepped by hand when data arrives: what one sets, others see."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest
import uvloop

from pymicro.rpc import InContext

user: ContextVar[str] = ContextVar("user", default="nobody")


async def handler(name: str) -> str:
    """What is set before this call; it sets another value."""
    found = user.get()
    user.set(name)
    return found


def by_hand(work: Coroutine[Any, Any, str]) -> str:
    try:
        work.send(None)
    except StopIteration as end:
        return str(end.value)
    raise AssertionError("the handler waited")


class Stepping(asyncio.Protocol):
    """Runs the handler when a name arrives, and answers with what it found."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(by_hand(handler(data.decode())).encode())


async def two_calls_on_two_connections() -> list[str]:
    server = await asyncio.get_running_loop().create_server(Stepping, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    found = []
    for name in ("Ann", "John"):
        for number, (reader, writer) in enumerate(pairs):
            writer.write(f"{name}-{number}".encode())
            found.append((await reader.read(100)).decode())
    for _, writer in pairs:
        writer.close()
    server.close()
    return found


@pytest.mark.parametrize(
    ("factory", "found"),
    [
        (asyncio.new_event_loop, ["nobody", "nobody", "Ann-0", "Ann-1"]),  # leaks to the next call of a connection
        (uvloop.new_event_loop, ["nobody", "Ann-0", "Ann-1", "John-0"]),  # and to other connections
    ],
)
def test_stepping_by_hand_leaks(factory: Callable[[], asyncio.AbstractEventLoop], found: list[str]) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(two_calls_on_two_connections()) == found


async def test_a_context_of_its_own_does_not() -> None:
    assert [await InContext(handler(name)) for name in ("Ann", "John")] == ["nobody", "nobody"]
    assert user.get() == "nobody"


async def test_time_outs_work_inside() -> None:
    async def slow() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await InContext(slow())
