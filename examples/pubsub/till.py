"""Publishes orders, and hears from the warehouses what became of them."""

import asyncio

from pymicro import Service
from warehouse import Done, Order

lines: asyncio.Queue[str] = asyncio.Queue()


async def report(done: Done) -> None:
    await lines.put(f"{done.item} {done.what}")


service = Service("till")
service.subscribe("done", report)


async def main() -> None:
    orders = service.publisher("orders", Order)
    for item in ("apples", "bread"):
        await orders.publish(Order(item))
    print(*sorted([await lines.get() for _ in range(6)]), sep="\n")


if __name__ == "__main__":
    service.run(main)
