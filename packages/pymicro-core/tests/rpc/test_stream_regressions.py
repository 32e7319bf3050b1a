"""Defects of streams that once were: each test failed before the code was mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest

from pymicro import Service, call_options, context, endpoint, errors
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.record import Node
from pymicro.transport import MemoryTransport, Socket
from pymicro_testing import no_leaks

Make = Callable[..., Service]


@asynccontextmanager
async def raw(mesh: Any, service: Service) -> AsyncIterator[Socket]:
    async with MemoryTransport(network=mesh.network) as transport:
        assert service.server.node is not None
        socket = await transport.dial(Node("raw", service.server.node.address), timeout=1)
        yield socket
        await socket.aclose()


def message(endpoint: str, body: bytes = b"{}", **more: str) -> Message:
    head = {"Content-Type": "application/json", "Micro-Endpoint": endpoint, "Micro-Id": "7", "Micro-Stream": "7"}
    return Message(Headers({**head, **{name.replace("_", "-"): value for name, value in more.items()}}), body)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until something holds that nothing announces."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0)


class Numbers:
    def __init__(self) -> None:
        self.seen: list[int] = []
        self.done = asyncio.Event()
        self.ended = asyncio.Event()

    async def count(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number

    async def total(self, numbers: AsyncIterator[int]) -> int:
        try:
            async for number in numbers:
                self.seen.append(number)
                await asyncio.sleep(0)
            self.done.set()
        finally:
            self.ended.set()
        return sum(self.seen)

    async def double(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number

    async def silent(self, start: int) -> AsyncIterator[int]:
        try:
            self.done.set()
            await asyncio.Event().wait()
            yield start
        finally:
            self.ended.set()


class Streams(Protocol):
    def count(self, upto: int) -> AsyncIterator[int]: ...
    def double(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]: ...
    async def total(self, numbers: AsyncIterator[int]) -> int: ...
    @endpoint(timeout=1000.0)
    def silent(self, start: int) -> AsyncIterator[int]: ...


def stub(service: Service, **how: Any) -> Streams:
    return service.client.stub("numbers", Streams, name="Numbers", **how)


async def items(*values: int) -> AsyncIterator[int]:
    for value in values:
        yield value


async def test_streams_in_envelopes(service: Make) -> None:
    async with service("numbers", Numbers()) as one:
        rpc = stub(one, content_type="application/json-rpc")
        assert [n async for n in rpc.count(3)] == [0, 1, 2]
        assert [n async for n in rpc.double(items(1, 2))] == [2, 4]
        assert await rpc.total(items(1, 2)) == 3


async def test_an_upload_that_ended_before_it_was_begun_is_served(service: Make, mesh: Any) -> None:
    numbers = Numbers()
    async with service("numbers", numbers) as one:
        async with raw(mesh, one) as socket:
            await socket.send(message("Numbers.Total"))
            for number in range(5):
                await socket.send(message("Numbers.Total", b"%d" % number))
            await socket.send(message("Numbers.Total", b"", Micro_Error="EOS"))
        await asyncio.wait_for(numbers.ended.wait(), 3)
        assert (numbers.seen, numbers.done.is_set()) == ([0, 1, 2, 3, 4], True)


class Store:
    """Has work to do when an upload has ended."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.received, self.let_go = asyncio.Event(), asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def put(self, numbers: AsyncIterator[int]) -> int:
        try:
            async for number in numbers:
                self.got.append(number)
            self.received.set()
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.ended.set_result("cancelled")
            raise
        self.ended.set_result("finished")
        return len(self.got)

    async def put_and_tell(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        yield await self.put(numbers)


@pytest.mark.parametrize("method", ["Put", "PutAndTell"])
async def test_a_caller_that_ended_its_upload_and_left_lets_the_handler_finish(
    service: Make, mesh: Any, method: str
) -> None:
    store = Store()
    async with no_leaks(), service("store", store) as one:
        async with raw(mesh, one) as socket:
            await socket.send(message(f"Store.{method}"))
            await socket.send(message(f"Store.{method}", b"1"))
            await socket.send(message(f"Store.{method}", b"", Micro_Error="EOS"))
            await asyncio.wait_for(store.received.wait(), 3)
        for _ in range(20):
            await asyncio.sleep(0)  # the server learns that the caller is gone
        store.let_go.set()
        assert await asyncio.wait_for(store.ended, 3) == "finished"
        await until(lambda: not one.server.connections)


@pytest.mark.parametrize("received", [True, False])
async def test_a_caller_that_awaits_something_and_leaves_cancels_the_handler(
    service: Make, mesh: Any, received: bool
) -> None:
    store = Store()
    async with no_leaks(), service("store", store) as one:
        async with raw(mesh, one) as socket:
            await socket.send(message("Store.Put"))
            await socket.send(message("Store.Put", b"1"))
            await socket.send(message("Store.Put", b"", Micro_Error="EOS", Micro_Awaits="yes"))
            if received:
                await asyncio.wait_for(store.received.wait(), 3)
        await until(lambda: not one.server.connections)
        assert not store.ended.done() or store.ended.result() == "cancelled"


async def test_a_caller_that_is_cancelled_after_its_upload_cancels_the_handler(service: Make) -> None:
    store = Store()

    async def upload() -> None:
        await one.client.stub("store", Store).put(items(1, 2))

    async with no_leaks(), service("store", store) as one:
        uploading = asyncio.create_task(upload())
        await asyncio.wait_for(store.received.wait(), 3)
        uploading.cancel()
        assert await asyncio.wait_for(store.ended, 3) == "cancelled"
        await asyncio.wait([uploading])


async def test_an_upload_that_broke_off_before_it_was_begun_is_cancelled(service: Make, mesh: Any) -> None:
    numbers = Numbers()
    async with no_leaks(), service("numbers", numbers) as one:
        async with raw(mesh, one) as socket:
            await socket.send(message("Numbers.Total"))
            for number in range(5):
                await socket.send(message("Numbers.Total", b"%d" % number))
        await until(lambda: not one.server.connections)
        assert not numbers.done.is_set()


async def test_a_caller_that_is_gone_before_its_stream_begins_does_not_keep_it(service: Make, mesh: Any) -> None:
    numbers = Numbers()
    async with service("numbers", numbers) as one:
        async with raw(mesh, one) as socket:
            await socket.send(message("Numbers.Silent"))
            await socket.send(message("Numbers.Silent", b"1"))
        await until(lambda: not one.server.connections)


class Abrupt(Socket):
    """A peer whose last messages and disconnect arrive in one turn of the loop, as on uvloop."""

    remote = "abrupt"

    def __init__(self) -> None:
        self.inbox: list[Message] = []
        self.gone = False
        self.waiter: asyncio.Future[None] | None = None
        self._callback: Any = None
        self.sent: list[Message] = []

    on_disconnect = property(lambda self: self._callback, lambda self, to: setattr(self, "_callback", to))  # type: ignore[assignment]

    @property
    def connected(self) -> bool:
        return not self.gone

    async def send(self, message: Message) -> None:
        if self.gone:
            raise errors.Disconnected("gone")
        self.sent.append(message)

    async def recv(self) -> Message:
        while not self.inbox:
            if self.gone:
                raise errors.Disconnected("gone")
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        return self.inbox.pop(0)

    async def aclose(self) -> None:
        pass

    def arrive(self, *messages: Message, gone: bool = False) -> None:
        self.inbox += messages
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        if gone:
            self.gone = True
            self._callback()


@pytest.mark.parametrize("endpoint_name", ["Total", "Silent"])
async def test_messages_and_disconnect_in_one_turn(service: Make, endpoint_name: str) -> None:
    from pymicro.server._connection import Connection

    numbers = Numbers()
    async with service("numbers", numbers) as one:
        socket = Abrupt()
        serving = asyncio.create_task(Connection(one.server, socket).serve())
        name = f"Numbers.{endpoint_name}"
        socket.arrive(message(name))
        for _ in range(5):
            await asyncio.sleep(0)
        if endpoint_name == "Total":
            socket.arrive(message(name, b"1"), message(name, b"2"), message(name, b"", Micro_Error="EOS"), gone=True)
        else:
            socket.arrive(message(name, b"1"), gone=True)
        await asyncio.wait_for(serving, 3)
        assert numbers.done.is_set() == (endpoint_name == "Total") or numbers.ended.is_set()
        assert numbers.seen == ([1, 2] if endpoint_name == "Total" else [])


async def test_a_connection_error_of_the_callers_own_requests_reaches_the_caller(service: Make) -> None:
    async def bad() -> AsyncIterator[int]:
        yield 1
        raise errors.BackendUnavailable("my database")

    async with service("numbers", Numbers()) as one:
        with pytest.raises(errors.BackendUnavailable, match="my database"):
            await asyncio.wait_for(stub(one).total(bad()), 3)


async def test_requests_cancelled_from_inside_end_the_stream(service: Make) -> None:
    async def bad() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    async with service("numbers", Numbers()) as one:
        with pytest.raises(errors.UsageError, match="cancelled"):
            await asyncio.wait_for(stub(one).total(bad()), 3)


async def test_an_error_while_the_requests_are_closed_is_told(service: Make) -> None:
    class Bad:
        def __aiter__(self) -> Bad:
            return self

        async def __anext__(self) -> int:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            raise LookupError("mine")

    async with service("numbers", Numbers()) as one:
        with pytest.raises(LookupError, match="mine"):
            await asyncio.wait_for(stub(one).total(Bad()), 3)


async def test_opening_a_stream_is_limited_by_its_deadline(service: Make, mesh: Any) -> None:
    class Hanging(MemoryTransport):
        async def dial(self, node: Node, *, timeout: float) -> Socket:
            await asyncio.Event().wait()
            raise AssertionError

    from pymicro.registry import MemoryRegistry

    caller = Service(
        "caller",
        environ={},
        broker="memory",
        registry=lambda build: MemoryRegistry(None, build, catalog=mesh.catalog),
        transport=lambda build: Hanging(None, build, network=mesh.network),
    )
    async with service("numbers", Numbers()), caller:
        with call_options(timeout=0.05), pytest.raises(errors.DeadlineExceeded) as caught:
            await asyncio.wait_for(anext(stub(caller).silent(3)), 2)  # type: ignore[arg-type]  # it is a coroutine
        assert caught.value.executed == "no"


async def test_a_slow_reader_of_a_fast_stream_meets_its_deadline(service: Make) -> None:
    from pymicro_testing import ManualClock

    clock = ManualClock()
    caller = service("caller", clock=clock)
    async with service("numbers", Numbers()), caller:
        with call_options(timeout=0.5):
            stream = stub(caller).count(1000)
            assert [await anext(stream) for _ in range(10)] == [*range(10)]
            await clock.advance(1)
            with pytest.raises(errors.DeadlineExceeded):
                await anext(stream)


async def test_a_node_of_old_go_micro_keeps_the_metadata(service: Make, mesh: Any) -> None:
    from pymicro.record import ServiceRecord
    from pymicro.registry import MemoryRegistry

    class Look:
        async def look(self) -> dict[str, str]:
            return dict(context().metadata)

        async def stream(self) -> AsyncIterator[str]:
            yield context().headers["Content-Type"]

    async with service("look", Look()) as one, MemoryRegistry(catalog=mesh.catalog) as registry:
        assert one.server.node is not None
        record = ServiceRecord("old", "1", nodes=(Node("old-1", one.server.node.address),))
        await registry.register(record, ttl=90)
        with call_options(metadata={"X-A": "1"}):
            assert await one.client.call("old", "Look.Look") == {"X-A": "1"}
        found = [text async for text in one.client.stub("old", Look).stream()]  # type: ignore[attr-defined]
        assert found == ["application/json-rpc"]


async def test_a_call_without_end(service: Make) -> None:
    class Echo:
        async def say(self, text: str) -> str:
            return text

    async with service("echo", Echo()) as one:
        assert await one.client.call("echo", "Echo.Say", "x", timeout=float("inf")) == "x"


async def test_an_upload_without_a_response_is_the_servers_fault(service: Make, mesh: Any) -> None:
    class Empty:
        async def total(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
            async for _ in numbers:
                pass
            return
            yield 1

    class Interface(Protocol):
        async def total(self, numbers: AsyncIterator[int]) -> int: ...

    async with service("empty", Empty()) as one:
        with pytest.raises(errors.InternalServerError, match="without a response"):
            await one.client.stub("empty", Interface, name="Empty").total(items(1))


async def test_aclose_twice_and_after_the_end(service: Make) -> None:
    async with no_leaks(), service("numbers", Numbers()) as one:
        stream: Any = stub(one).count(3)
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        stream = stub(one).count(1)
        assert [n async for n in stream] == [0]
        await stream.aclose()
