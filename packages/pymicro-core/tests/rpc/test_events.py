"""Events within a process, over the memory broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from pymicro import Delivery, Request, Response, RetryPolicy, Service, context, errors
from pymicro.rpc import Call

Make = Callable[..., Service]


@dataclass
class Order:
    id: int


class Inbox:
    def __init__(self) -> None:
        self.seen: list[object] = []
        self.changed = asyncio.Event()

    def add(self, value: object) -> None:
        self.seen.append(value)
        self.changed.set()

    async def until(self, count: int) -> list[object]:
        async with asyncio.timeout(5):
            while len(self.seen) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.seen


@pytest.fixture
async def inbox() -> Inbox:
    return Inbox()


async def test_publish_and_subscribe(service: Make, inbox: Inbox) -> None:
    async def on_order(order: Order) -> None:
        inbox.add((order, context().endpoint, context().metadata["X-Shop"]))

    shop = service("shop")
    shop.subscribe("orders", on_order)
    async with shop, service("till") as till:
        await till.publish("orders", Order(1), metadata={"X-Shop": "acme"})
        await till.publisher("orders", Order).publish(Order(2), metadata={"X-Shop": "acme"})
        assert await inbox.until(2) == [(Order(1), "orders", "acme"), (Order(2), "orders", "acme")]


async def test_bytes_are_the_body_as_it_is(service: Make, inbox: Inbox) -> None:
    async def on_bytes(body: bytes) -> None:
        inbox.add(body)

    shop = service("shop")
    shop.subscribe("orders", on_bytes)
    async with shop, service("till") as till:
        await till.publish("orders", b'{"id":1}')
        await till.publisher("orders", bytes).publish(b"\xff")
        assert sorted(await inbox.until(2), key=repr) == sorted([b'{"id":1}', b"\xff"], key=repr)


async def test_a_queue_shares_and_a_broadcast_repeats(service: Make, inbox: Inbox) -> None:
    async def shared(order: Order) -> None:
        inbox.add("shared")

    async def every(order: Order) -> None:
        inbox.add("every")

    one, two = service("shop"), service("shop")
    for each in (one, two):
        each.subscribe("orders", shared, queue="workers")
        each.subscribe("orders", every)
    async with one, two:
        for number in range(4):
            await one.publish("orders", Order(number))
        seen = await inbox.until(12)
        assert (seen.count("shared"), seen.count("every")) == (4, 8)


async def test_plain_functions_subscribe_too(service: Make) -> None:
    loop = asyncio.get_running_loop()
    seen = loop.create_future()

    def on_order(order: Order) -> None:
        loop.call_soon_threadsafe(seen.set_result, order)

    shop = service("shop")
    shop.subscribe("orders", on_order)
    async with shop:
        await shop.publish("orders", Order(3))
        assert await asyncio.wait_for(seen, 5) == Order(3)


async def test_an_exception_brings_the_event_again_and_then_to_the_dead_letters(service: Make, inbox: Inbox) -> None:
    tries: list[int] = []

    async def poison(delivery: Delivery[Order]) -> None:
        tries.append(delivery.count)
        raise RuntimeError("no")

    async def dead(body: bytes) -> None:
        inbox.add(context().metadata.get("X-Shop"))

    shop = service("shop")
    shop.subscribe("orders", poison, retry=RetryPolicy(max_deliveries=3, delay=0.0))
    shop.subscribe("orders.dead", dead)
    async with shop:
        await shop.publish("orders", Order(1), metadata={"X-Shop": "acme"})
        assert await inbox.until(1) == ["acme"]
    assert tries == [1, 2, 3]


async def test_a_body_that_does_not_fit_goes_to_the_dead_letters_at_once(service: Make, inbox: Inbox) -> None:
    called = False

    async def on_order(order: Order) -> None:
        nonlocal called
        called = True

    async def dead(body: bytes) -> None:
        inbox.add(body)

    shop = service("shop")
    shop.subscribe("orders", on_order)
    shop.subscribe("orders.dead", dead)
    async with shop:
        await shop.publish("orders", {"id": "one"})
        assert await inbox.until(1) == [b'{"id":"one"}\n']
    assert not called


async def test_batches(service: Make, inbox: Inbox) -> None:
    async def on_orders(batch: Sequence[Delivery[Order]]) -> None:
        for delivery in batch:
            inbox.add(delivery.value.id)
            await delivery.ack()

    shop = service("shop")
    shop.subscribe("orders", on_orders)
    async with shop:
        for number in range(5):
            await shop.publish("orders", Order(number))
        assert sorted(await inbox.until(5)) == [0, 1, 2, 3, 4]  # type: ignore[type-var]  # they are numbers


async def test_the_pull_form(service: Make) -> None:
    async with service("shop") as shop, shop.subscription("orders", Order) as orders:
        await shop.publish("orders", Order(1))
        await shop.publish("orders", Order(2))
        seen = []
        async for delivery in orders:
            seen.append(delivery.value)
            if len(seen) == 2:
                break
        assert seen == [Order(1), Order(2)]


async def test_event_middleware(service: Make, inbox: Inbox) -> None:
    async def add_one(request: Request, next: Call) -> Response:
        request.body = Order(request.body.id + 1)
        return await next(request)

    async def on_order(order: Order) -> None:
        inbox.add(order.id)

    shop = service("shop")
    shop.use(events=[add_one])
    shop.subscribe("orders", on_order)
    async with shop:
        await shop.publish("orders", Order(1))
        assert await inbox.until(1) == [2]


async def test_two_brokers_by_name(service: Make, inbox: Inbox) -> None:
    async def forward(order: Order) -> None:
        await shop.publish("orders", order, broker="alerts")

    async def on_alert(order: Order) -> None:
        inbox.add(order)

    shop = service("shop", brokers={"alerts": "memory"})
    shop.subscribe("orders", forward)
    shop.subscribe("orders", on_alert, broker="alerts")
    async with shop:
        await shop.publish("orders", Order(1))
        assert await inbox.until(1) == [Order(1)]


async def test_an_unknown_broker_is_named(service: Make) -> None:
    async with service("shop") as shop:
        with pytest.raises(errors.ConfigurationError, match="no broker called 'alerts'"):
            await shop.publish("orders", Order(1), broker="alerts")


async def test_stopping_lets_a_handler_finish(service: Make, inbox: Inbox) -> None:
    running, gate = asyncio.Event(), asyncio.Event()

    async def slow(order: Order) -> None:
        running.set()
        await gate.wait()
        inbox.add(order)

    shop = service("shop")
    shop.subscribe("orders", slow)
    await shop.start()
    await shop.publish("orders", Order(1))
    await running.wait()
    stop = asyncio.create_task(shop.stop())
    await asyncio.sleep(0)
    gate.set()
    await stop
    assert inbox.seen == [Order(1)]


def test_subscribers_that_cannot_be_called_are_refused(service: Make) -> None:
    async def two(a: int, b: int) -> None: ...

    async def untyped(event):  # type: ignore[no-untyped-def]  # the mistake under test
        ...

    async def values(events: Sequence[int]) -> None: ...

    shop = service("shop")
    for function, text in ((two, "one parameter"), (untyped, "no annotation"), (values, "Sequence")):
        with pytest.raises(errors.InvalidHandler, match=text):
            shop.subscribe("orders", function)
