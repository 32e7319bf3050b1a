"""Events within one process: a shared queue, a subscriber that sees everything, retries, a dead letter."""

import asyncio
from dataclasses import dataclass

from pymicro import Delivery, RetryPolicy, Service


@dataclass
class Order:
    item: str


lines: asyncio.Queue[str] = asyncio.Queue()


async def pack(order: Order) -> None:
    """An exception means: not done, bring it again."""
    if order.item == "vase":
        raise RuntimeError("it broke")
    await lines.put(f"packed {order.item}")


async def audit(order: Order) -> None:
    await lines.put(f"audited {order.item}")


async def give_up(delivery: Delivery[Order]) -> None:
    """A parameter `Delivery[Order]` shows headers and count, and is settled by hand."""
    headers = delivery.message.headers
    await lines.put(f"gave up {delivery.value.item} after {headers['Micro-Dead-Count']} deliveries")
    await delivery.ack()


service = Service("shop", broker="memory")
retry = RetryPolicy(max_deliveries=3, delay=0.05)
service.subscribe("orders", pack, queue="packing", retry=retry)  # two subscribers of one queue share the orders
service.subscribe("orders", pack, queue="packing", retry=retry)
service.subscribe("orders", audit)  # without a queue: every order
service.subscribe("orders.dead", give_up, queue="packing")  # where orders go that failed three times


async def main() -> None:
    orders = service.publisher("orders", Order)
    for item in ("apples", "bread", "vase"):
        await orders.publish(Order(item))
    print(*sorted([await lines.get() for _ in range(6)]), sep="\n")


if __name__ == "__main__":
    service.run(main)
