"""What the end of a socket says of the request that was on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from pymicro.errors import BackendRefused, Disconnected, Unavailable, UsageError
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_transport_rabbitmq._transport import RabbitmqTransport

PATIENCE = 10.0
Pair = tuple[Socket, Socket]


@pytest.fixture
async def pair(open_transport: Any) -> AsyncIterator[Pair]:
    """Both ends of a socket."""
    accepted: asyncio.Queue[Socket] = asyncio.Queue()

    async def accept(socket: Socket) -> None:
        accepted.put_nowait(socket)
        await asyncio.Event().wait()

    listener = await (await open_transport()).listen("", accept)
    node = Node("one", listener.addresses[0], {"protocol": "mucp", **RabbitmqTransport.node_metadata})
    client = await (await open_transport()).dial(node, timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE), aclosing(client):
        yield client, await accepted.get()


async def call(client: Socket, server: Socket) -> None:
    """One call that is answered."""
    await client.send(Message(body=b"request"))
    await server.recv()
    await server.send(Message(body=b"answer"))
    await client.recv()


@pytest.mark.parametrize("calls", [0, 1])
async def test_a_request_that_was_not_taken_was_not_executed(pair: Pair, calls: int) -> None:
    client, server = pair
    for _ in range(calls):
        await call(client, server)
    await client.send(Message(body=b"request"))
    await server.aclose()
    with pytest.raises(Unavailable) as failure:
        await client.recv()
    assert failure.value.executed == "no"
    with pytest.raises(Disconnected):
        await client.send(Message())


async def test_a_request_that_crosses_the_end_was_not_executed(pair: Pair) -> None:
    client, server = pair
    await asyncio.gather(server.aclose(), client.send(Message(body=b"request")))
    with pytest.raises(Unavailable) as failure:
        await client.recv()
    assert failure.value.executed == "no"


async def test_a_request_that_was_taken_may_have_been_executed(pair: Pair) -> None:
    client, server = pair
    await client.send(Message(body=b"request"))
    await server.recv()
    await server.aclose()
    with pytest.raises(Disconnected):
        await client.recv()


async def test_a_stream_is_never_said_not_to_have_been_executed(pair: Pair) -> None:
    client, server = pair
    await client.send(Message(Headers({"Micro-Stream": "1"})))
    await server.aclose()
    with pytest.raises(Disconnected):
        await client.recv()


async def test_an_end_between_calls_is_none_of_a_call(pair: Pair) -> None:
    client, server = pair
    await call(client, server)
    await server.aclose()
    with pytest.raises(Disconnected):
        await client.recv()


@pytest.mark.parametrize("headers", [{}, {"Micro-Stream": "1"}])
async def test_a_request_that_never_left_is_none(pair: Pair, headers: dict[str, str]) -> None:
    client, server = pair
    with pytest.raises(BackendRefused):
        await client.send(Message(Headers({"X": "\ud800", **headers})))
    await server.aclose()
    with pytest.raises(Disconnected):
        await client.recv()


async def test_a_stream_that_never_left_says_nothing_of_the_next_request(pair: Pair) -> None:
    client, server = pair
    with pytest.raises(BackendRefused):
        await client.send(Message(Headers({"Micro-Stream": "1", "X": "\ud800"})))
    await client.send(Message(body=b"request"))
    await server.aclose()
    with pytest.raises(Unavailable) as failure:
        await client.recv()
    assert failure.value.executed == "no"


async def test_two_receivers_at_once_are_refused(pair: Pair) -> None:
    client, server = pair
    first = asyncio.create_task(client.recv())
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="one at a time"):
        await client.recv()
    await server.send(Message(body=b"for the first"))
    assert (await first).body == b"for the first"
