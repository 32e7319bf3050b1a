"""Streams between pymicro and real Go Micro peers: items 12 to 14 and 22 of the checklist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from go_peers import GoProgram, StartGo
from go_streams import FALL, LEAVE, Number, Range, Streams, Told, opened, received, rounds
from processes import PATIENCE
from pymicro import Service, errors
from recorder import Recorder


@pytest.fixture
async def recorder(go_server: GoProgram) -> AsyncIterator[Recorder]:
    """Stands before a Go server."""
    async with Recorder(go_server.ready["address"]) as recorder:
        yield recorder


@pytest.fixture
def streams(caller: Service, recorder: Recorder) -> Streams:
    return caller.client.stub("greeter", Streams, address=recorder.address)


@pytest.mark.checklist(12)
async def test_rounds_until_python_ends_them(streams: Streams, go_server: GoProgram) -> None:
    told = Told()
    replies = streams.echo(aiter(told))
    await rounds(replies, told, 100)
    told.end()
    assert (await go_server.event("returned", endpoint="Streams.Echo"))["error"] is None
    await replies.aclose()  # type: ignore[attr-defined]  # typed as an iterator; it is a generator


@pytest.mark.checklist(12)
async def test_rounds_until_go_ends_them(streams: Streams) -> None:
    told = Told()
    replies = streams.echo(aiter(told))
    await rounds(replies, told, 3)
    told.tell(LEAVE)
    async with asyncio.timeout(PATIENCE):
        assert [number async for number in replies] == []


@pytest.mark.checklist(12)
async def test_a_go_handler_that_fails_in_the_middle(streams: Streams) -> None:
    told = Told()
    replies = streams.echo(aiter(told))
    await rounds(replies, told, 3)
    told.tell(FALL)
    with pytest.raises(errors.Conflict, match="no more") as caught:
        await anext(replies)
    assert caught.value.id == "streams"


@pytest.mark.checklist(12)
async def test_python_cancels_in_the_middle(streams: Streams, go_server: GoProgram) -> None:
    told, reached = Told(), asyncio.Event()

    async def read() -> None:
        async for _ in streams.echo(aiter(told)):
            reached.set()

    reading = asyncio.create_task(read())
    told.tell(1)
    await asyncio.wait_for(reached.wait(), PATIENCE)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await go_server.event("returned", endpoint="Streams.Echo")


@pytest.mark.checklist(13)
async def test_a_stream_from_go(streams: Streams, recorder: Recorder) -> None:
    async with asyncio.timeout(PATIENCE):
        numbers = [number.value async for number in streams.count(Range(upto=20, pause=20))]
    assert numbers == [*range(20)]

    [connection] = recorder.connections
    opening, request = connection.requests
    assert opening.headers["Micro-Stream"] == request.headers["Micro-Stream"]
    assert (opening.body, request.body) == (b"", b'{"upto":20,"pause":20}\n')
    assert connection.responses[-1].headers["Micro-Error"] == "EOS"


@pytest.mark.checklist(14)
async def test_a_stream_to_go(streams: Streams, recorder: Recorder) -> None:
    async def numbers() -> AsyncIterator[Number]:
        for value in range(100):
            yield Number(value)

    assert await streams.total(numbers()) == Number(4950)
    requests = recorder.connections[0].requests
    assert (len(requests), requests[-1].headers["Micro-Error"]) == (102, "EOS")


class Numbers:
    """What the Go clients stream to.

    Attributes:
        left: set when a stream's handler is past its loop over the requests.
        let_go: until then `store` does not return.
        stored: what it got; set when it is done.
        cancelled: set when a handler was.
    """

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.let_go = asyncio.Event()
        self.stored: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.cancelled = asyncio.Event()

    async def double(self, numbers: AsyncIterator[Number]) -> AsyncIterator[Number]:
        async for number in numbers:
            if number.value == FALL:
                raise errors.Conflict("no more", "numbers")
            if number.value == LEAVE:
                return
            yield Number(2 * number.value)
        self.left.set()

    async def flood(self, upto: Number) -> AsyncIterator[Number]:
        for value in range(upto.value):
            yield Number(value)

    async def silence(self, upto: Number) -> AsyncIterator[Number]:
        try:
            yield Number(0)
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def store(self, numbers: AsyncIterator[Number]) -> Number:
        got = [number.value async for number in numbers]
        self.left.set()
        await self.let_go.wait()
        self.stored.set_result(got)
        return Number(len(got))

    async def listen(self, numbers: AsyncIterator[Number]) -> Number:
        try:
            async for number in numbers:
                if number.value == LEAVE:
                    self.left.set()
        except (asyncio.CancelledError, errors.Disconnected):
            self.cancelled.set()
            raise
        return Number(0)

    async def ping(self, number: Number) -> Number:
        return number


@pytest.fixture
async def numbers(environment: dict[str, str], name: str) -> AsyncIterator[tuple[Numbers, str]]:
    """A pymicro service, and its address."""
    numbers = Numbers()
    service = Service(name, environ=environment | {"MICRO_REGISTRY": "memory", "MICRO_DRAIN_DELAY": "0"})
    service.handle(numbers)
    async with service:
        assert service.server.node is not None
        yield numbers, service.server.node.address


@pytest.fixture
async def client(start_go: StartGo, numbers: tuple[Numbers, str]) -> GoProgram:
    return await start_go("client", f"-address={numbers[1]}")


@pytest.mark.checklist(22)
async def test_go_gets_an_answer_to_each_request(client: GoProgram, numbers: tuple[Numbers, str]) -> None:
    await opened(client, "Numbers.Double")
    for value in range(20):
        assert (await client.ask("send", body={"value": value}))["error"] is None
        assert await received(client, 1) == ([2 * value], None)
    assert (await client.ask("close"))["error"] is None
    await asyncio.wait_for(numbers[0].left.wait(), PATIENCE)


@pytest.mark.checklist(22)
async def test_the_end_and_the_error_of_a_handler_reach_go(client: GoProgram) -> None:
    await opened(client, "Numbers.Double", 1, LEAVE)
    assert await received(client, 2) == ([2], "EOF")
    await opened(client, "Numbers.Double", 1, FALL)
    error = {"id": "numbers", "code": 409, "detail": "no more", "status": "Conflict"}
    assert await received(client, 2) == ([2], error)


@pytest.mark.checklist(22)
async def test_a_thousand_at_once_reach_go(client: GoProgram) -> None:
    await opened(client, "Numbers.Flood", 1000)
    assert await received(client, 1001) == ([*range(1000)], "EOF")


@pytest.mark.checklist(22)
async def test_gos_end_lets_the_handler_finish(client: GoProgram, numbers: tuple[Numbers, str]) -> None:
    handler, _ = numbers
    await opened(client, "Numbers.Store", 1, 2, 3)
    assert (await client.ask("close"))["error"] is None  # EOS, and the connection closes
    await asyncio.wait_for(handler.left.wait(), PATIENCE)
    said = await client.ask("call", endpoint="Numbers.Ping", body={"value": 1})  # comes in after the end of the other
    assert said["reply"] == {"value": 1}
    handler.let_go.set()
    assert await asyncio.wait_for(handler.stored, PATIENCE) == [1, 2, 3]


@pytest.mark.checklist(22)
async def test_go_leaves_a_stream_that_it_only_reads(client: GoProgram, numbers: tuple[Numbers, str]) -> None:
    await opened(client, "Numbers.Silence", 1)
    assert await received(client, 1) == ([0], None)
    assert (await client.ask("close"))["error"] is None
    await asyncio.wait_for(numbers[0].cancelled.wait(), PATIENCE)


@pytest.mark.checklist(22)
async def test_a_go_client_that_dies_cancels_the_handler(client: GoProgram, numbers: tuple[Numbers, str]) -> None:
    await opened(client, "Numbers.Listen", LEAVE)
    await asyncio.wait_for(numbers[0].left.wait(), PATIENCE)
    await client.kill()
    await asyncio.wait_for(numbers[0].cancelled.wait(), PATIENCE)
