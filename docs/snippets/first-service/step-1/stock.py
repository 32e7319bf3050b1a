from dataclasses import dataclass

from pymicro import Service


@dataclass
class Item:
    name: str
    count: int


class Stock:
    def __init__(self) -> None:
        self._counts = {"apple": 3}

    async def take(self, item: Item) -> Item:
        self._counts[item.name] -= item.count
        return Item(item.name, self._counts[item.name])


service = Service("stock")
service.handle(Stock())

if __name__ == "__main__":
    service.run()
