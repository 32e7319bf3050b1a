from greeter import Greeter, HelloRequest
from pymicro import Service

service = Service("greeter.client")


async def main() -> None:
    greeter = service.client.stub("greeter", Greeter)  # typed: the IDE and mypy know hello()
    print((await greeter.hello(HelloRequest(name="John"))).greeting)


if __name__ == "__main__":
    service.run(main)  # parses flags, opens the client, runs main, closes
