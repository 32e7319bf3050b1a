"""Middleware round calls: `calls` once for each call, `attempts` once for each node that is tried."""

from greeter import Greeter, HelloRequest
from pymicro import Request, Response, Service, errors
from pymicro.rpc import Call


class AddToken:
    token = ""

    async def __call__(self, request: Request, next: Call) -> Response:
        if self.token:
            request.add_metadata({"Authorization": f"Bearer {self.token}"})
        return await next(request)


async def show_attempt(request: Request, next: Call) -> Response:
    assert request.node is not None  # chosen by now
    print(f"attempt {request.attempt} at a node over {request.node.metadata['transport']}")
    return await next(request)


add_token = AddToken()
service = Service("greeter.client")
service.client.use(calls=[add_token], attempts=[show_attempt])


async def main() -> None:
    greeter = service.client.stub("greeter", Greeter)
    try:
        await greeter.hello(HelloRequest(name="John"))
    except errors.Unauthorized as error:
        print("refused:", error.detail)
    add_token.token = "secret-of-ann"
    print((await greeter.hello(HelloRequest(name="John"))).greeting)


if __name__ == "__main__":
    service.run(main)
