"""The load of one cell: calls back to back, from tasks, from threads, or from a program that makes them itself."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from itertools import chain, cycle, islice
from typing import Any

import msgspec

from costs import Costs, Sides
from peers import BlockingClient, Client
from scenarios import Scenario, cases

#: Seconds of the same load before what is measured: connections, caches and the registry's first answer.
WARM_UP = 0.3
_Cases = Sequence[tuple[Any, Any]]


class Measured(msgspec.Struct, kw_only=True):
    """One cell's figures.

    Attributes:
        calls: how many were made.
        rate: calls a second.
        p50, p99: seconds that a call took.
        client_cpu, server_cpu, broker_cpu: seconds of CPU a call, user and system; 0 where there is no such process.
        instructions: a call, all sides, user and kernel; None where they cannot be counted.
        foreign: cores that others had meanwhile; see `Costs`.
        processes: how many answered, where the answers say.
    """

    calls: int
    rate: float
    p50: float
    p99: float
    client_cpu: float
    server_cpu: float
    broker_cpu: float
    instructions: float | None
    foreign: float | None
    processes: int | None = None


class WrongReplyError(Exception):
    """A reply was not what was asked for."""


async def by_tasks(client: Client, scenario: Scenario, seconds: float, sides: Sides) -> Measured:
    """Warm up, then measure for `seconds`, with a task for each call in flight.

    Raises:
        WrongReplyError: see there.
    """
    asked = cases(scenario)
    pids: set[int] = set()

    async def compute(number: int) -> int:
        same, pid = await client.compute(number)
        pids.add(pid)
        return same

    if scenario.shape == "stream":
        run = partial(_stream, client, scenario.in_flight, asked)
    else:
        call: Callable[[Any], Awaitable[Any]] = (
            compute if scenario.shape == "compute" else getattr(client, scenario.shape)
        )
        run = partial(_tasks, call, scenario.in_flight, asked)
    await run(WARM_UP)
    gc.collect()
    pids.clear()
    with Costs(sides) as costs:
        took = await run(seconds)
    return _measured(costs, took, len(pids) or None)


def _measured(costs: Costs, took: list[float], processes: int | None = None) -> Measured:
    took.sort()
    return _figures(costs, len(took), took[len(took) // 2], took[len(took) * 99 // 100], processes)


def _figures(costs: Costs, calls: int, p50: float, p99: float, processes: int | None = None) -> Measured:
    return Measured(
        calls=calls,
        rate=calls / costs.seconds,
        p50=p50,
        p99=p99,
        client_cpu=costs.client_cpu / calls,
        server_cpu=costs.server_cpu / calls,
        broker_cpu=costs.broker_cpu / calls,
        instructions=None if costs.instructions is None else costs.instructions / calls,
        foreign=costs.foreign,
        processes=processes,
    )


async def _tasks(call: Callable[[Any], Awaitable[Any]], tasks: int, asked: _Cases, seconds: float) -> list[float]:
    """How long each call took."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(tasks):
                group.create_task(_call_until(end, call, _from(asked, number), took))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # one says as much as 64 of the same
    return took


def _from(asked: _Cases, number: int) -> Iterator[tuple[Any, Any]]:
    """The cases for ever, for each task from another one on."""
    first = number * 7 % len(asked)
    return cycle(chain(islice(asked, first, None), islice(asked, first)))


async def _call_until(
    end: float, call: Callable[[Any], Awaitable[Any]], asked: Iterator[tuple[Any, Any]], took: list[float]
) -> None:
    clock = time.perf_counter
    now = clock()
    for request, right in asked:
        began = now
        reply = await call(request)
        now = clock()
        took.append(now - began)
        if reply != right:
            raise WrongReplyError(f"{request!r:.100}: {reply!r:.100}")
        if now >= end:
            return


async def _stream(client: Client, window: int, asked: _Cases, seconds: float) -> list[float]:
    """How long each message waited for its answer, with `window` under way."""
    clock = time.perf_counter
    took: list[float] = []
    sent: deque[float] = deque()
    room = asyncio.Semaphore(window)
    end = clock() + seconds

    async def names() -> AsyncIterator[str]:
        for name, _ in cycle(asked):
            await room.acquire()
            now = clock()
            if now >= end:
                return
            sent.append(now)
            yield name

    answers = cycle(right for _, right in asked)
    async for answer in client.stream(names()):
        took.append(clock() - sent.popleft())
        if answer != next(answers):
            raise WrongReplyError(repr(answer))
        room.release()
    if sent:
        raise WrongReplyError(f"{len(sent)} messages of the stream were not answered")
    return took


def by_threads(
    connect: Callable[[], AbstractContextManager[BlockingClient]], scenario: Scenario, seconds: float, sides: Sides
) -> Measured:
    """The same with a thread and a client for each call in flight."""
    asked = cases(scenario)
    with ExitStack() as stack:
        calls = [getattr(stack.enter_context(connect()), scenario.shape) for _ in range(scenario.in_flight)]
        _threads(calls, asked, WARM_UP)
        gc.collect()
        with Costs(sides) as costs:
            took = _threads(calls, asked, seconds)
    return _measured(costs, took)


def _threads(calls: Sequence[Callable[[Any], Any]], asked: _Cases, seconds: float) -> list[float]:
    took: list[float] = []
    errors: list[Exception] = []
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        try:
            _block_until(end, calls[number], _from(asked, number), took)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return took


def _block_until(end: float, call: Callable[[Any], Any], asked: Iterator[tuple[Any, Any]], took: list[float]) -> None:
    clock = time.perf_counter
    now = clock()
    for request, right in asked:
        began = now
        reply = call(request)
        now = clock()
        took.append(now - began)
        if reply != right:
            raise WrongReplyError(f"{request!r:.100}: {reply!r:.100}")
        if now >= end:
            return


def by_program(command: Sequence[str], scenario: Scenario, seconds: float, sides: Sides) -> Measured:
    """The same by a program that calls and checks for itself.

    It is told the rest as flags. When it is warm it prints `warm` and waits for a line; when it has measured for
    `-seconds` it prints `done`, and then `calls`, `p50` and `p99` as JSON.

    Raises:
        WrongReplyError: it failed; what it says is on stderr.
    """
    flags = {"size": scenario.size, "in-flight": scenario.in_flight, "seconds": seconds, "warm-up": WARM_UP}
    told = [*command, *(f"-{name}={value}" for name, value in flags.items())]
    with subprocess.Popen(told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        _expect("warm\n", program.stdout.readline())
        with Costs(sides._replace(client=program.pid)) as costs:
            program.stdin.write("\n")
            program.stdin.flush()
            _expect("done\n", program.stdout.readline())
        counted = msgspec.json.decode(program.stdout.readline())
    return _figures(costs, **counted)


def _expect(right: str, line: str) -> None:
    if line != right:
        raise WrongReplyError(f"the program said {line!r}")
