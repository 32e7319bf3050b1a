"""What the end of a socket says of the request that was on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from pymicro.errors import Disconnected, Unavailable, UsageError
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.record import Node
from pymicro.transport import Socket

PATIENCE = 10.0
REQUEST = Message(body=b"request")


class Line:
    """A socket, whose other end is accepted when something is sent."""

    def __init__(self, client: Socket, accepted: asyncio.Queue[Socket]) -> None:
        self.client = client
        self._accepted = accepted

    async def call(self) -> Socket:
        """One call that is answered; the other end."""
        await self.client.send(REQUEST)
        server = await self._accepted.get()
        await server.recv()
        await server.send(Message(body=b"answer"))
        await self.client.recv()
        return server

    async def asked(self, request: Message = REQUEST) -> Socket:
        """Send the first request; the other end, which did not take it yet."""
        await self.client.send(request)
        return await self._accepted.get()


@pytest.fixture
async def line(open_transport: Any) -> AsyncIterator[Line]:
    accepted: asyncio.Queue[Socket] = asyncio.Queue()

    async def accept(socket: Socket) -> None:
        accepted.put_nowait(socket)
        await asyncio.Event().wait()

    far = await open_transport()
    async with asyncio.timeout(PATIENCE), aclosing(await far.listen("", accept)) as listener:
        node = Node("one", listener.addresses[0], {"protocol": "mucp", **far.node_metadata})
        async with aclosing(await (await open_transport()).dial(node, timeout=PATIENCE)) as client:
            yield Line(client, accepted)


async def not_executed(client: Socket) -> None:
    with pytest.raises(Unavailable) as failure:
        await client.recv()
    assert failure.value.executed == "no"
    with pytest.raises(Disconnected):
        await client.send(Message())


async def test_a_first_request_that_was_not_taken_was_not_executed(line: Line) -> None:
    await (await line.asked()).aclose()
    await not_executed(line.client)


async def test_a_later_request_that_was_not_taken_was_not_executed(line: Line) -> None:
    server = await line.call()
    await line.client.send(REQUEST)
    await server.aclose()
    await not_executed(line.client)


async def test_a_request_that_crosses_the_end_was_not_executed(line: Line) -> None:
    server = await line.call()
    await asyncio.gather(server.aclose(), line.client.send(REQUEST))
    await not_executed(line.client)


async def test_a_request_that_was_taken_may_have_been_executed(line: Line) -> None:
    server = await line.asked()
    await server.recv()
    await server.aclose()
    with pytest.raises(Disconnected):
        await line.client.recv()


async def test_a_stream_is_never_said_not_to_have_been_executed(line: Line) -> None:
    await (await line.asked(Message(Headers({"Micro-Stream": "1"})))).aclose()
    with pytest.raises(Disconnected):
        await line.client.recv()


async def test_an_end_between_calls_is_none_of_a_call(line: Line) -> None:
    await (await line.call()).aclose()
    with pytest.raises(Disconnected):
        await line.client.recv()


async def test_two_receivers_at_once_are_refused(line: Line) -> None:
    server = await line.call()
    first = asyncio.create_task(line.client.recv())
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="one at a time"):
        await line.client.recv()
    await server.send(Message(body=b"for the first"))
    assert (await first).body == b"for the first"
