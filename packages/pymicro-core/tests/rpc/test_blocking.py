"""Stubs for synchronous code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pymicro import Service, errors

Make = Callable[..., Service]


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello {name}"

    async def count(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number

    async def fail(self, name: str) -> str:
        raise errors.Conflict("no")

    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])


def alone() -> Service:
    service = Service("greeter", environ={}, registry="memory", transport="memory", broker="memory", drain_delay=0)
    service.handle(Greeter())
    return service


def test_a_script_calls_without_an_event_loop() -> None:
    greeter: Any = alone().client.blocking.stub("greeter", Greeter)
    assert greeter.hello("Ann") == "Hello Ann"
    assert list(greeter.count(3)) == [0, 1, 2]
    with pytest.raises(errors.Conflict, match="no"):
        greeter.fail("x")


def test_leaving_a_stream_early_closes_it() -> None:
    service = alone()
    greeter: Any = service.client.blocking.stub("greeter", Greeter)
    numbers = greeter.count(1_000_000)
    assert next(numbers) == 0
    numbers.close()
    assert greeter.hello("Ann") == "Hello Ann"


async def test_a_plain_handler_calls_on(service: Make) -> None:
    inner = service("inner.client")

    class Front:
        def hello(self, name: str) -> str:
            assert threading.current_thread() is not threading.main_thread()
            said: str = inner.client.blocking.stub("greeter", Greeter).hello(name)
            return said + "!"

    async with service("greeter", Greeter()), inner, service("front", Front()) as front:
        assert await front.client.call("front", "Front.Hello", "Ann") == "Hello Ann!"


async def test_inside_a_running_loop_it_is_an_error(service: Make) -> None:
    async with service("greeter", Greeter()) as greeter:
        with pytest.raises(errors.UsageError, match="would stop it"):
            greeter.client.blocking.stub("greeter", Greeter).hello("x")


async def test_several_threads_call_at_once(service: Make) -> None:
    async with service("greeter", Greeter()) as one:
        stub: Any = one.client.blocking.stub("greeter", Greeter)
        said = await asyncio.gather(*(asyncio.to_thread(stub.hello, str(n)) for n in range(20)))
        assert said == [f"Hello {n}" for n in range(20)]


def test_streams_of_requests_are_not_offered() -> None:
    with pytest.raises(errors.UsageError, match="total"):
        alone().client.blocking.stub("greeter", Greeter).total([1])
