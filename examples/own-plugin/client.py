import plugins  # noqa: F401 (enables what it imports)
from greeter import Greeter, HelloRequest
from pymicro import Service

service = Service("greeter.client")


async def main() -> None:
    greeter = service.client.stub("greeter", Greeter)
    print((await greeter.hello(HelloRequest(name="John"))).greeting)


if __name__ == "__main__":
    service.run(main)
