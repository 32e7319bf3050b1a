"""Answers calls, and tells everybody of them in events."""

from dataclasses import dataclass

import plugins  # noqa: F401 (enables what it imports)
from pymicro import Publisher, Service


@dataclass
class HelloRequest:
    name: str


@dataclass
class HelloResponse:
    greeting: str


@dataclass
class Greeted:
    name: str


class Greeter:
    def __init__(self, greeted: Publisher[Greeted]) -> None:
        self._greeted = greeted

    async def hello(self, request: HelloRequest) -> HelloResponse:
        await self._greeted.publish(Greeted(request.name))
        return HelloResponse(greeting=f"Hello {request.name}")


service = Service("greeter")
service.handle(Greeter(service.publisher("greeted", Greeted)))

if __name__ == "__main__":
    service.run()
