# protoc makes the module; a type checker that runs before protoc does not find it
from greeter_pb2 import HelloRequest, HelloResponse  # type: ignore[import-not-found, unused-ignore]

from pymicro import Service


class Greeter:
    async def hello(self, request: HelloRequest) -> HelloResponse:
        return HelloResponse(greeting=f"Hello {request.name}")


service = Service("greeter")
service.handle(Greeter())

if __name__ == "__main__":
    service.run()
