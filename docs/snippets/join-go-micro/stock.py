from dataclasses import dataclass

from pymicro import Service, errors


@dataclass
class Item:
    name: str


@dataclass
class Amount:
    pieces: int


class Stock:
    async def count(self, item: Item) -> Amount:
        if item.name != "apples":
            raise errors.NotFound(f"no {item.name} in stock")
        return Amount(pieces=12)


service = Service("stock")
service.handle(Stock())

if __name__ == "__main__":
    service.run()
