import asyncio
from dataclasses import dataclass

from pymicro import Service
from pymicro_testing.servers import RedisServer


@dataclass
class Order:
    item: str


async def test_packing_goes_on_after_a_crash_of_redis(redis_server: RedisServer) -> None:
    packed: asyncio.Queue[str] = asyncio.Queue()

    async def pack(order: Order) -> None:
        await packed.put(order.item)

    service = Service("shop", registry="memory", broker="redis", broker_address=redis_server.address)
    service.subscribe("orders", pack, queue="packing")
    async with service:
        await redis_server.kill()
        await redis_server.start()
        await service.publish("orders", Order("apple"), timeout=10.0)
        assert await packed.get() == "apple"
