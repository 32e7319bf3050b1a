from stock import Item, Stock

from pymicro import Service

service = Service("stock.client")


async def main() -> None:
    stock = service.client.stub("stock", Stock)
    item = await stock.take(Item("apple", 1))
    print(item.count, "left")


if __name__ == "__main__":
    service.run(main)
