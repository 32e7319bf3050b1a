# protoc makes the module; a type checker that runs before protoc does not find it
from greeter_pb2 import HelloRequest  # type: ignore[import-not-found, unused-ignore]

from greeter import Greeter
from pymicro import Service

service = Service("greeter.client", client_content_type="application/protobuf")


async def main() -> None:
    greeter = service.client.stub("greeter", Greeter)
    print((await greeter.hello(HelloRequest(name="John"))).greeting)


if __name__ == "__main__":
    service.run(main)
