import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pymicro import call_options, errors
from pymicro_testing import ManualClock, Mesh, fake, settle
from shop import Item, Order, Shop, Stock, compose


# region serve
class Greeter:
    async def hello(self, name: str) -> str:
        if not name:
            raise errors.BadRequest("a name, please")
        return f"Hello {name}"

    async def letters(self, name: str) -> AsyncIterator[str]:
        for letter in name:
            yield letter


async def test_a_handler(serve: Callable[..., Any]) -> None:
    async with serve(Greeter()) as greeter:
        assert await greeter.hello("John") == "Hello John"
        assert [letter async for letter in greeter.letters("John")] == ["J", "o", "h", "n"]
        with pytest.raises(errors.BadRequest, match="a name"):
            await greeter.hello("")
        with pytest.raises(errors.BadRequest, match="str"):
            await greeter.hello(5)


# endregion


# region fake
async def test_what_the_shop_asks_its_stock(mesh: Mesh) -> None:
    stock = mesh.fake("stock", Stock, take=lambda item: Item(item.name, 7))
    compose(mesh.service("shop"))
    async with mesh.run() as client:
        assert await client.stub("shop", Shop).order(Item("apple", 1)) == "apple for nobody"
    assert stock.calls == [("take", Item("apple", 1))]


async def test_what_is_not_in_stock_is_not_sold(mesh: Mesh) -> None:
    mesh.fake("stock", Stock, take=errors.NotFound("no plum here"))
    compose(mesh.service("shop"))
    async with mesh.run() as client:
        with pytest.raises(errors.BadRequest, match="we do not sell plum"):
            await client.stub("shop", Shop).order(Item("plum", 1))


# endregion


# region published
async def test_an_order_is_published_with_its_customer(mesh: Mesh) -> None:
    mesh.fake("stock", Stock, take=Item("apple", 7))
    compose(mesh.service("shop"))
    async with mesh.run() as client:
        with call_options(metadata={"Customer": "Ann"}):
            await client.stub("shop", Shop).order(Item("apple", 1))
    assert mesh.published("orders", Order) == [Order("apple", "Ann")]


# endregion


# region subscriber
async def test_a_subscriber_hears_of_orders(mesh: Mesh) -> None:
    heard: list[Order] = []

    async def pack(order: Order) -> None:
        heard.append(order)

    packing = mesh.service("packing")
    packing.subscribe("orders", pack)
    async with mesh.run():
        await packing.publish("orders", Order("apple", "Ann"))
        await settle()  # every task runs to its next wait
    assert heard == [Order("apple", "Ann")]


# endregion


# region clock
async def test_a_call_ends_after_its_time_out(mesh: Mesh, clock: ManualClock) -> None:
    shop = mesh.service("shop")
    shop.handle(Shop(fake(Stock), shop.publisher("orders", Order)))
    async with mesh.run() as client:
        calling = asyncio.create_task(client.stub("shop", Shop).wait())
        await clock.advance(29.0)
        assert not calling.done()
        await clock.advance(1.1)
        with pytest.raises(errors.DeadlineExceeded):
            await calling


# endregion


# region outage
async def test_the_shop_survives_an_outage_of_the_registry(mesh: Mesh) -> None:
    mesh.fake("stock", Stock, take=Item("apple", 7))
    compose(mesh.service("shop"))
    async with mesh.run() as client:
        shop = client.stub("shop", Shop)
        await shop.order(Item("apple", 1))
        mesh.catalog.available = False
        assert await shop.order(Item("apple", 1)) == "apple for nobody"


# endregion
