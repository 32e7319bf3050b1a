"""The messages shown are those that go over the wire, in both directions."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from pymicro import Service, call_options, errors

ADDRESS, SECONDS = "10.0.0.5:8080", 5.0


@dataclass
class HelloRequest:
    name: str


@dataclass
class HelloResponse:
    greeting: str


class OutOfStock(errors.Conflict):
    left: int


class Greeter:
    async def hello(self, request: HelloRequest) -> HelloResponse:
        return HelloResponse(f"Hello {request.name}")

    async def fail(self, request: HelloRequest) -> HelloResponse:
        error = OutOfStock("only 3 left")
        error.left = 3
        raise error


def shown(name: str) -> bytes:
    head, blank, body = Path(__file__).with_name(name).read_bytes().partition(b"\n\n")
    return (head + blank).replace(b"\n", b"\r\n") + body


def service() -> Service:
    return Service(
        "greeter", environ={}, transport="http", registry="memory", server_address="127.0.0.1:0", drain_delay=0
    )


async def test_a_client_sends_the_request_and_takes_the_response() -> None:
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n") + await reader.readline())
        writer.write(shown("response.http"))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    async with server, service() as caller:
        with call_options(metadata={"Tenant": "blue"}, propagate=True, timeout=SECONDS):
            response = await caller.client.stub("greeter", Greeter, address=address).hello(HelloRequest("John"))
    assert response == HelloResponse("Hello John")
    (request,) = requests
    remaining = re.search(rb"Timeout: (\d+)\r\n", request)
    assert remaining is not None
    assert 0 < int(remaining[1]) <= SECONDS * 1e9
    shown_timeout = b"Timeout: %d\r\n" % (SECONDS * 1e9)
    assert request.replace(remaining[0], shown_timeout).replace(address.encode(), ADDRESS.encode()) == shown(
        "request.http"
    )


async def test_a_server_takes_the_request_and_sends_the_response() -> None:
    greeter = service()
    greeter.handle(Greeter())
    async with greeter:
        assert greeter.server.node is not None
        host, _, port = greeter.server.node.address.rpartition(":")
        for request, response in (
            (shown("request.http"), shown("response.http")),
            (shown("request.http").replace(b"Greeter.Hello", b"Greeter.Fail"), shown("error.http")),
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request)
            assert await asyncio.wait_for(reader.read(4096), 5) == response
            writer.close()
            await writer.wait_closed()


async def test_the_caller_gets_the_error_shown() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(shown("error.http"))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    async with server, service() as caller:
        with pytest.raises(OutOfStock) as caught:
            await caller.client.stub("greeter", Greeter, address=address).fail(HelloRequest("John"))
    assert (caught.value.code, caught.value.detail, caught.value.left) == (409, "only 3 left", 3)
