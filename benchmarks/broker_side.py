"""One process that publishes or consumes; `broker_cells.py` starts it with an order in JSON."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Final

import msgspec

from costs import Costs, Sides
from load import Measured
from messaging import BACKENDS, Publish, calling, load, raw

#: Bytes of a body, and publishes at a time.
SIZE, IN_FLIGHT = 1024, 64
#: Different bodies that a recording has.
_RECORDED = 16
#: One message in so many comes before what is measured.
_WARM_UP = 10
#: Seconds for all that one process does.
_PATIENCE = 90.0

_draw = random.Random(1)
_TAILS = [_draw.randbytes(SIZE - 4) for _ in range(_RECORDED)]


class WrongMessageError(Exception):
    """A message was not what was published, or came twice."""


class Order(msgspec.Struct, kw_only=True):
    """What to do.

    Attributes:
        do: `publish` publishes, and leaves the messages to a queue where there is one. `consume` takes them. Both end
            with a `Measured` in JSON. `blast` records what the system writes, and then publishes that again and again,
            as fast as the client library can, for backends that keep nothing: there it and then `consume` say `ready`
            and wait for a line. `serve` answers calls, and says where; `call` makes them
            there, with that as its topic, and ends as `publish` does.
        system, backend, address, topic: as in `messaging`.
        messages: how many are counted.
        cores: that it may use; empty for all.
        uvloop: whether the event loop is uvloop's.
        server, feeder: their process ids; 0 for none.
    """

    do: str
    system: str
    backend: str
    address: str
    topic: str
    messages: int
    cores: tuple[int, ...] = ()
    uvloop: bool = True
    server: int = 0
    feeder: int = 0

    @property
    def all(self) -> int:
        """How many there are, with those that are not counted."""
        return self.messages + max(self.messages // _WARM_UP, 1)

    @property
    def sides(self) -> Sides:
        """Whose costs they are."""
        return Sides(os.getpid(), self.feeder, self.server)


def body(number: int) -> bytes:
    """What the message of this number holds."""
    return number.to_bytes(4, "big") + _TAILS[number % _RECORDED]


class Checker:
    """Takes messages, and measures from the first that counts to the last.

    Args:
        order: how many there are.
        distinct: numbers that they have; each comes equally often, give or take one.
        warm_up: how many of them come before those that count.
    """

    def __init__(self, order: Order, distinct: int, warm_up: int) -> None:
        self._order = order
        self._warm_up = warm_up
        self._seen: Counter[int] = Counter()
        self._most = -(-order.all // distinct)
        self._taken = 0
        self._costs = Costs(order.sides)
        self._counting = ExitStack()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def take(self, data: bytes) -> None:
        """See `messaging.Take`."""
        number = int.from_bytes(data[:4], "big")
        if data != body(number):
            self._fail(f"a message of {len(data)} bytes is not what was published")
        self._seen[number] += 1
        if self._seen[number] > self._most:
            self._fail(f"message {number} came once too often")
        self._taken += 1
        if self._taken == self._warm_up:
            gc.collect()
            self._counting.enter_context(self._costs)
        elif self._taken == self._order.all:
            self._counting.close()
            self._over.set_result(None)

    def _fail(self, why: str) -> None:
        self._counting.close()
        error = WrongMessageError(why)
        if not self._over.done():
            self._over.set_exception(error)
        raise error

    async def measured(self) -> Measured:
        """When all were there."""
        await self._over
        return _measured(self._costs, self._order.all - self._warm_up, [0.0])


async def publish(order: Order) -> Measured:
    """See `Order`."""
    backend = BACKENDS[order.backend]
    system = load(backend, order.system)
    await raw(backend).prepare(order.backend, order.address, order.topic)
    if backend.keeps:
        async with system.consumer(order.backend, order.address, order.topic, _nobody):
            pass
    numbers = iter(range(order.all))
    async with system.publisher(order.backend, order.address, order.topic) as send:
        await _publish(send, numbers, order.all - order.messages)
        gc.collect()
        with Costs(order.sides) as costs:
            took = await _publish(send, numbers, order.messages)
    return _measured(costs, order.messages, took)


async def _nobody(data: bytes) -> None:
    raise WrongMessageError("a message before one was published")


async def _publish(send: Publish, numbers: Iterator[int], count: int) -> list[float]:
    """How long each took."""
    took: list[float] = []
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            began = time.perf_counter()
            await send(body(next(numbers)))
            took.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())
    return took


async def consume(order: Order) -> Measured:
    """See `Order`."""
    backend = BACKENDS[order.backend]
    # Where nothing is kept, a library that reads ahead of the handlers would have read many before a later one.
    distinct, warm_up = (order.all, order.all - order.messages) if backend.keeps else (_RECORDED, 1)
    checker = Checker(order, distinct, warm_up)
    system = load(backend, order.system)
    async with system.consumer(order.backend, order.address, order.topic, checker.take):
        if not backend.keeps:
            await _pause()
        return await checker.measured()


async def blast(order: Order) -> None:
    """See `Order`."""
    backend = BACKENDS[order.backend]
    system, library = load(backend, order.system), raw(backend)
    where = order.backend, order.address, order.topic
    async with library.recorder(*where, _RECORDED) as record:
        async with system.publisher(*where) as send:
            for number in range(_RECORDED):
                await send(body(number))
        await record.complete()
        await _pause()
        await record.blast(order.all)
        await _line()  # its costs are read as long as it is there


async def serve(order: Order) -> None:
    """See `Order`."""
    system = calling(BACKENDS[order.backend], order.system)
    async with system.server(order.backend, order.address, order.topic) as where:
        print(where, flush=True)
        await _line()


async def call(order: Order) -> Measured:
    """See `Order`."""
    system = calling(BACKENDS[order.backend], order.system)
    numbers = iter(range(order.all))
    async with system.caller(order.backend, order.address, order.topic) as echo:

        async def checked(data: bytes) -> None:
            if await echo(data) != data:
                raise WrongMessageError("a reply was not what was asked for")

        await _publish(checked, numbers, order.all - order.messages)
        gc.collect()
        with Costs(order.sides) as costs:
            took = await _publish(checked, numbers, order.messages)
    return _measured(costs, order.messages, took)


async def _pause() -> None:
    """Lets another side go first."""
    print("ready", flush=True)
    await _line()


async def _line() -> None:
    await asyncio.to_thread(sys.stdin.readline)


def _measured(costs: Costs, messages: int, took: list[float]) -> Measured:
    took.sort()
    return Measured(
        calls=messages,
        rate=messages / costs.seconds,
        p50=took[len(took) // 2],
        p99=took[len(took) * 99 // 100],
        client_cpu=costs.client_cpu / messages,
        server_cpu=costs.server_cpu / messages,
        broker_cpu=costs.broker_cpu / messages,
        instructions=None if costs.instructions is None else costs.instructions / messages,
        foreign=costs.foreign,
    )


_DO: Final[dict[str, Callable[[Order], Awaitable[Measured | None]]]] = {
    "publish": publish,
    "consume": consume,
    "blast": blast,
    "serve": serve,
    "call": call,
}


async def run(order: Order) -> Measured | None:
    """Do it, in bounded time."""
    async with asyncio.timeout(_PATIENCE):
        return await _DO[order.do](order)


def main() -> None:
    """Do as the argument says."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    if order.cores:
        os.sched_setaffinity(0, order.cores)
    loop_factory = None
    if order.uvloop:
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        measured = runner.run(run(order))
    if measured is not None:
        print(msgspec.json.encode(measured).decode())


if __name__ == "__main__":
    main()
