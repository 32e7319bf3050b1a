from stock import Item, OutOfStock, Stock

from pymicro import Service, errors

service = Service("stock.client")


# region main
async def main() -> None:
    stock = service.client.stub("stock", Stock)
    try:
        await stock.take(Item("apple", 4))
    except OutOfStock as error:
        print("there are", error.left)
    try:
        await stock.take(Item("plum", 1))
    except errors.NotFound as error:
        print(error.code, error.detail)
    async for item in stock.all():
        print(item.name, item.count)
    # endregion


if __name__ == "__main__":
    service.run(main)
