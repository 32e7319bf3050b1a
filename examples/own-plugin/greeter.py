from dataclasses import dataclass

import plugins  # noqa: F401 (enables what it imports)
from pymicro import Service


@dataclass
class HelloRequest:
    name: str


@dataclass
class HelloResponse:
    greeting: str


class Greeter:
    async def hello(self, request: HelloRequest) -> HelloResponse:
        return HelloResponse(greeting=f"Hello {request.name}")


service = Service("greeter")
service.handle(Greeter())

if __name__ == "__main__":
    service.run()
