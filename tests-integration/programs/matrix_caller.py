"""Calls a `matrix_node.py`, reads a stream of it, asks it by event, and prints what it got."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Protocol

from pymicro import Service

NAME = os.environ["NODE_NAME"]
NUMBERS = 100
EVENTS = 10


class Greeter(Protocol):
    async def hello(self, name: str) -> str: ...

    def count(self, upto: int) -> AsyncIterator[int]: ...


service = Service("caller")
answers: asyncio.Queue[str] = asyncio.Queue()


async def hear(event: str) -> None:
    answers.put_nowait(event)


service.subscribe(f"{NAME}.answered", hear)


async def main() -> None:
    greeter = service.client.stub(NAME, Greeter)
    sys.stdout.write(f"{await greeter.hello('John')}\n")
    sys.stdout.write(f"counted {sum([number async for number in greeter.count(NUMBERS)])}\n")
    for number in range(EVENTS):
        await service.publish(f"{NAME}.asked", f"event {number}")
    heard = {await answers.get() for _ in range(EVENTS)}
    sys.stdout.write(f"heard {len(heard)}\n")


if __name__ == "__main__":
    service.run(main)
