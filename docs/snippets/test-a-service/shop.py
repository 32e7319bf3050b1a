import asyncio
from dataclasses import dataclass
from typing import Protocol

from pymicro import Publisher, Service, context, errors


@dataclass
class Item:
    name: str
    count: int


@dataclass
class Order:
    item: str
    customer: str


class Stock(Protocol):
    """The neighbour, as far as the shop needs it."""

    async def take(self, item: Item) -> Item: ...


class Shop:
    def __init__(self, stock: Stock, orders: Publisher[Order]) -> None:
        self._stock = stock
        self._orders = orders

    async def order(self, item: Item) -> str:
        customer = context().metadata.get("Customer", "nobody")
        try:
            await self._stock.take(item)
        except errors.NotFound:
            raise errors.BadRequest(f"we do not sell {item.name}") from None
        await self._orders.publish(Order(item.name, customer))
        return f"{item.name} for {customer}"

    async def wait(self) -> None:
        await asyncio.sleep(3600)


def compose(service: Service) -> Service:
    service.handle(Shop(service.client.stub("stock", Stock), service.publisher("orders", Order)))
    return service
