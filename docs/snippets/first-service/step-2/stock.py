from collections.abc import AsyncIterator
from dataclasses import dataclass

from pymicro import Publisher, Service, errors


@dataclass
class Item:
    name: str
    count: int


# region error
class OutOfStock(errors.Conflict):
    """409: somebody was faster."""

    left: int

    def __init__(self, left: int) -> None:
        super().__init__(f"only {left} left")
        self.left = left


# endregion


# region handler
class Stock:
    def __init__(self, sold_out: Publisher[Item]) -> None:
        self.counts = {"apple": 3, "pear": 1}
        self._sold_out = sold_out

    async def take(self, item: Item) -> Item:
        if item.name not in self.counts:
            raise errors.NotFound(f"no {item.name} here")
        left = self.counts[item.name] - item.count
        if left < 0:
            raise OutOfStock(left + item.count)
        self.counts[item.name] = left
        if left == 0:
            await self._sold_out.publish(item)
        return Item(item.name, left)

    async def all(self) -> AsyncIterator[Item]:
        for name, count in self.counts.items():
            yield Item(name, count)


# endregion


# region compose
def compose(service: Service) -> Service:
    stock = Stock(service.publisher("sold-out", Item))

    async def reorder(item: Item) -> None:
        stock.counts[item.name] += 10

    service.handle(stock)
    service.subscribe("sold-out", reorder, queue="reorder")
    return service


if __name__ == "__main__":
    compose(Service("stock", broker="memory")).run()
# endregion
