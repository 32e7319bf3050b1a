"""Streams in all four shapes, in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import pytest

from pymicro import Request, Response, Service, errors
from pymicro.rpc import Call
from pymicro_testing import no_leaks

Make = Callable[..., Service]


class Numbers:
    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.running = asyncio.Event()

    async def count(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number

    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    async def double(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number

    async def forever(self, start: int) -> AsyncIterator[int]:
        try:
            self.running.set()
            while True:
                yield start
                await asyncio.sleep(0)
        finally:
            self.ended.set()

    async def silent(self, start: int) -> AsyncIterator[int]:
        try:
            self.running.set()
            await asyncio.Event().wait()
            yield start
        finally:
            self.ended.set()

    async def broken(self, upto: int) -> AsyncIterator[int]:
        yield 1
        raise errors.Conflict("enough")

    async def early(self, numbers: AsyncIterator[int]) -> int:
        raise errors.Forbidden("not you")

    async def listen(self, numbers: AsyncIterator[int]) -> int:
        try:
            self.running.set()
            return sum([number async for number in numbers])
        finally:
            self.ended.set()

    def plain(self, upto: int) -> Iterator[int]:
        try:
            yield from range(upto)
        finally:
            self.ended.set()


class Streams(Protocol):
    """The streams as typing writes them in a Protocol."""

    def count(self, upto: int) -> AsyncIterator[int]: ...

    def double(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]: ...

    async def total(self, numbers: AsyncIterator[int]) -> int: ...

    def plain(self, upto: int) -> AsyncIterator[int]: ...

    def forever(self, start: int) -> AsyncIterator[int]: ...

    def silent(self, start: int) -> AsyncIterator[int]: ...

    def broken(self, upto: int) -> AsyncIterator[int]: ...

    async def early(self, numbers: AsyncIterator[int]) -> int: ...

    async def listen(self, numbers: AsyncIterator[int]) -> int: ...


async def items(*values: int) -> AsyncIterator[int]:
    for value in values:
        yield value


async def endless() -> AsyncIterator[int]:
    while True:
        yield 1
        await asyncio.sleep(0)


@pytest.fixture
async def numbers() -> Numbers:
    return Numbers()


def stub(service: Service) -> Streams:
    return service.client.stub("numbers", Streams, name="Numbers")


async def test_server_stream(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers) as one:
        assert [n async for n in stub(one).count(100)] == list(range(100))
        assert [n async for n in stub(one).count(0)] == []


async def test_client_stream(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers) as one:
        assert await stub(one).total(items(1, 2, 3)) == 6
        assert await stub(one).total(items()) == 0


async def test_bidirectional_stream(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers) as one:
        assert [n async for n in stub(one).double(items(1, 2, 3))] == [2, 4, 6]


async def test_a_thousand_messages_keep_their_order(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers) as one:
        assert [n async for n in stub(one).double(items(*range(1000)))] == [2 * n for n in range(1000)]


async def test_plain_generators_are_stepped_in_threads(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers) as one:
        assert [n async for n in stub(one).plain(3)] == [0, 1, 2]
        assert numbers.ended.is_set()


async def test_an_error_in_the_middle_ends_the_stream(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers) as one:
        seen = []

        async def read() -> None:
            async for number in stub(one).broken(1):
                seen.append(number)

        with pytest.raises(errors.Conflict, match="enough"):
            await read()
        assert seen == [1]


async def test_an_early_error_reaches_a_caller_that_still_sends(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers) as one:
        with pytest.raises(errors.Forbidden, match="not you"):
            await stub(one).early(endless())


async def test_an_error_of_the_callers_own_requests_reaches_the_caller(service: Make, numbers: Numbers) -> None:
    async def bad() -> AsyncIterator[int]:
        yield 1
        raise LookupError("mine")

    async with service("numbers", numbers) as one:
        with pytest.raises(LookupError, match="mine"):
            await stub(one).listen(bad())
        await asyncio.wait_for(numbers.ended.wait(), 5)


@pytest.mark.parametrize("method", ["forever", "silent"])
async def test_leaving_a_stream_cancels_its_handler(service: Make, numbers: Numbers, method: str) -> None:
    async with service("numbers", numbers) as one:

        async def consume() -> None:
            async for _ in getattr(stub(one), method)(1):
                pass

        task = asyncio.create_task(consume())
        await numbers.running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(numbers.ended.wait(), 5)


async def test_a_generator_that_never_waits_leaves_the_loop_to_others(service: Make) -> None:
    class Greedy:
        async def run(self) -> AsyncIterator[int]:
            while True:
                yield 1

    async with service("greedy", Greedy()) as one, service("caller") as caller:
        async for _ in one.client.stub("greedy", Greedy).run():
            assert await caller.client.call("greedy", "Debug.Health")
            break


async def test_breaking_out_of_a_stream_cancels_its_handler(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers) as one:
        async for _ in stub(one).forever(1):
            break
        await asyncio.wait_for(numbers.ended.wait(), 5)


async def test_cancelling_an_upload_cancels_its_handler(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers) as one:
        task = asyncio.create_task(stub(one).listen(endless()))  # type: ignore[arg-type]  # a stub's call is a coroutine
        await numbers.running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(numbers.ended.wait(), 5)


async def test_a_deadline_ends_a_stream_on_both_sides(service: Make, numbers: Numbers) -> None:
    from pymicro import call_options

    async with service("numbers", numbers) as one:
        with call_options(timeout=0.05), pytest.raises(errors.DeadlineExceeded):
            async for _ in stub(one).silent(1):
                pass
        await asyncio.wait_for(numbers.ended.wait(), 5)


async def test_streams_over_the_limit_get_429(service: Make, numbers: Numbers) -> None:
    async with service("numbers", numbers, server_max_streams=1, client_retries=0) as one:
        first = stub(one).forever(1)
        assert await anext(first) == 1
        with pytest.raises(errors.TooManyRequests):
            await anext(stub(one).count(1))
        await first.aclose()  # type: ignore[attr-defined]  # typed as an iterator; it is a generator


async def test_a_reader_that_stops_makes_the_sender_wait(service: Make) -> None:
    sent = 0

    class Flood:
        async def run(self) -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                yield b"x" * 1000
                sent += 1

    class Interface(Protocol):
        def run(self) -> AsyncIterator[bytes]: ...

    async with service("flood", Flood(), max_buffer_size=10_000) as one:
        stream = one.client.stub("flood", Interface, name="Flood").run()
        await anext(stream)
        before = -1
        while before != sent:
            before = sent
            for _ in range(20):
                await asyncio.sleep(0)
        assert sent < 30
        await stream.aclose()  # type: ignore[attr-defined]  # typed as an iterator; it is a generator


async def test_stream_middleware_sees_every_message(service: Make, numbers: Numbers) -> None:
    async def negate(request: Request, next: Call) -> Response:
        response = await next(request)

        async def negated(inner: AsyncIterator[int]) -> AsyncIterator[int]:
            async for number in inner:
                yield -number

        response.body = negated(response.body)
        return response

    one = service("numbers", numbers)
    one.use(streams=[negate])
    one.client.use(streams=[negate])
    async with one:
        assert [n async for n in stub(one).count(3)] == [0, 1, 2]
    other = service("numbers", numbers)
    other.use(streams=[negate])
    async with other:
        assert [n async for n in stub(other).count(3)] == [0, -1, -2]


async def test_streams_cancelled_at_random_moments_leave_nothing(service: Make, numbers: Numbers) -> None:
    rng = random.Random(7)
    async with no_leaks(), service("numbers", numbers) as one:
        calls: list[Callable[[], Any]] = [
            lambda: drain(stub(one).count(50)),
            lambda: drain(stub(one).forever(1)),
            lambda: drain(stub(one).double(endless())),
            lambda: stub(one).total(endless()),
        ]

        async def one_call() -> None:
            task = asyncio.ensure_future(rng.choice(calls)())
            for _ in range(rng.randrange(40)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

        for _ in range(20):
            await asyncio.gather(*(one_call() for _ in range(20)))
        await until(lambda: not (one.server.streams or one.server.connections))


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until something holds that nothing announces."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0)


async def drain(stream: AsyncIterator[int]) -> None:
    async for _ in stream:
        pass
