from dataclasses import dataclass
from typing import Protocol

from pymicro import Service, errors


@dataclass
class Item:
    name: str


@dataclass
class Price:
    cents: int


class Prices(Protocol):
    async def of(self, item: Item) -> Price: ...


service = Service("client")


async def main() -> None:
    prices = service.client.stub("prices", Prices)
    print((await prices.of(Item("apples"))).cents, "cents")
    try:
        await prices.of(Item("pears"))
    except errors.NotFound as error:
        print(error.id, error.code, error.detail)


if __name__ == "__main__":
    service.run(main)
