"""Middleware round handlers: one writes a line for each call, one finds out who calls."""

from dataclasses import dataclass

from pymicro import Request, Response, Service, errors
from pymicro.rpc import Call

ACCOUNTS = {"secret-of-ann": "Ann"}


@dataclass
class HelloRequest:
    name: str


@dataclass
class HelloResponse:
    greeting: str


class Greeter:
    async def hello(self, request: HelloRequest) -> HelloResponse:
        return HelloResponse(greeting=f"Hello {request.name}")


async def log_calls(request: Request, next: Call) -> Response:
    try:
        response = await next(request)
    except errors.Error as error:
        print(f"{request.endpoint}: {error.code} {error.status}", flush=True)
        raise
    print(f"{request.endpoint}: ok, called by {request.account}", flush=True)
    return response


async def authenticate(request: Request, next: Call) -> Response:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    request.account = ACCOUNTS.get(token)
    if request.account is None:
        raise errors.Unauthorized("send a bearer token that is known here")
    return await next(request)


service = Service("greeter")
service.handle(Greeter())
service.use(calls=[log_calls, authenticate])  # the first is the outermost

if __name__ == "__main__":
    service.run()
