"""Takes orders that other processes publish, packs its share of them and writes all of them down."""

from dataclasses import dataclass

from pymicro import Service


@dataclass
class Order:
    item: str


@dataclass
class Done:
    item: str
    what: str


service = Service("warehouse")
done = service.publisher("done", Done)


async def pack(order: Order) -> None:
    await done.publish(Done(order.item, "packed"))


async def write_down(order: Order) -> None:
    await done.publish(Done(order.item, "written down"))


service.subscribe("orders", pack, queue="packing")  # the warehouses share the orders
service.subscribe("orders", write_down)  # each warehouse gets every order

if __name__ == "__main__":
    service.run()
