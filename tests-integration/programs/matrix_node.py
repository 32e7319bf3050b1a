"""Greets, counts, and answers each event of `<its name>.asked` with one of `<its name>.answered`."""

import os
from collections.abc import AsyncIterator

from pymicro import Service

NAME = os.environ["NODE_NAME"]

service = Service(NAME)


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello {name}"

    async def count(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number


async def answer(event: str) -> None:
    await service.publish(f"{NAME}.answered", f"answer to {event}")


service.handle(Greeter())
service.subscribe(f"{NAME}.asked", answer, queue="node")

if __name__ == "__main__":
    service.run()
