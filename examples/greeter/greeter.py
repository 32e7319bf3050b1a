from dataclasses import dataclass

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


service = Service("greeter", metadata={"type": "helloworld"})
service.handle(Greeter())

if __name__ == "__main__":
    service.run()  # parses flags, listens, registers, drains on SIGTERM
