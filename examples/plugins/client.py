"""Calls the greeter, and hears of it in an event."""

import asyncio

import plugins  # noqa: F401 (enables what it imports)
from greeter import Greeted, Greeter, HelloRequest
from pymicro import Service

events: asyncio.Queue[Greeted] = asyncio.Queue()


async def hear(event: Greeted) -> None:
    await events.put(event)


service = Service("greeter.client")
service.subscribe("greeted", hear)


async def main() -> None:
    greeter = service.client.stub("greeter", Greeter)
    print((await greeter.hello(HelloRequest(name="John"))).greeting)
    print((await events.get()).name, "was greeted")


if __name__ == "__main__":
    service.run(main)
