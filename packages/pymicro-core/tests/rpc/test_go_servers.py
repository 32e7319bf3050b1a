"""Calls to servers that behave as Go Micro's do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pymicro import Service, errors
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.transport import MemoryTransport, Socket

Make = Callable[..., Service]


class GoServer:
    """Repeats in each reply the headers of the first request of its connection.

    Attributes:
        address: where it listens.
        requests: what came, on all connections.
        body: of its replies.
    """

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[Message] = []
        self.body = b'"hi"'
        self.own: dict[str, str] = {}

    async def serve(self, socket: Socket) -> None:
        first = None
        try:
            while True:
                message = await socket.recv()
                first = first or message
                self.requests.append(message)
                await socket.send(Message(Headers({**first.headers, **self.own}), self.body))
        except errors.ConnectionFailed:
            pass


@pytest.fixture
async def go(mesh: Any) -> AsyncIterator[GoServer]:
    go = GoServer()
    async with MemoryTransport(network=mesh.network) as transport:
        listener = await transport.listen("", go.serve)
        go.address = listener.addresses[0]
        yield go
        await listener.aclose()


async def test_each_request_on_one_connection_has_a_number_of_its_own(service: Make, go: GoServer) -> None:
    async with service("caller") as caller:
        for _ in range(3):
            reply = await caller.client.call(
                "go", "Greeter.Hello", "x", address=go.address, metadata={"Tenant": "blue"}
            )
            assert reply == "hi"
    assert [request.headers.get("Micro-Stream") for request in go.requests] == [None, "1", "2"]
    assert {request.headers["Tenant"] for request in go.requests} == {"blue"}
    assert {request.headers["Micro-Endpoint"] for request in go.requests} == {"Greeter.Hello"}


async def test_pymicro_servers_need_no_such_number(service: Make) -> None:
    seen: list[Headers] = []

    class Greeter:
        async def hello(self, name: str) -> str:
            return name

    async def middleware(request: Any, call: Any) -> Any:
        seen.append(request.headers)
        return await call(request)

    one = service("greeter", Greeter())
    one.use(calls=[middleware])
    async with one:
        for _ in range(3):
            await one.client.call("greeter", "Greeter.Hello", "x")
    assert [headers.get("Micro-Stream") for headers in seen] == [None] * 3


@pytest.mark.parametrize("type", [str, Any, bytes])
async def test_a_content_type_that_the_server_does_not_know(service: Make, go: GoServer, type: Any) -> None:
    go.body, go.own = b"unsupported Content-Type: text/plain", {"Content-Type": "text/plain"}
    async with service("caller") as caller:
        with pytest.raises(errors.InternalServerError, match="unsupported Content-Type: text/plain"):
            await caller.client.call(
                "go", "Greeter.Hello", "x", address=go.address, content_type="text/plain", response=type
            )
