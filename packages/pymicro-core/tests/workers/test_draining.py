"""A server that stops while others go on serving at its address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pymicro import Client, Service, errors
from pymicro_testing import Mesh


class Echo:
    async def say(self, text: str) -> str:
        return text


def echo(mesh: Mesh, drain_delay: float) -> Service:
    service = mesh.service("echo", server_address="memory:5", drain_delay=drain_delay)
    service.handle(Echo())
    service.server.succeeded = True
    return service


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[Client]:
    caller = mesh.service("caller")
    async with mesh.run(caller):
        yield caller.client


async def say(client: Client) -> object:
    return await client.call("echo", "Echo.Say", "hi", address="memory:5")


async def turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_it_ends_when_its_callers_are_gone(mesh: Mesh, client: Client) -> None:
    service = echo(mesh, drain_delay=60)
    await service.start()
    await say(client)
    stop = asyncio.create_task(service.stop())
    await turn()
    assert not stop.done()
    assert await say(client) == "hi"  # over the connection that it has, and with that it is told to go
    await asyncio.wait_for(stop, 5)


async def test_it_takes_no_new_connections_at_all(mesh: Mesh, client: Client) -> None:
    service = echo(mesh, drain_delay=60)
    await service.start()
    async with mesh.run(mesh.service("other")) as other:
        await say(client)
        stop = asyncio.create_task(service.stop())
        await turn()
        with pytest.raises(errors.Unavailable) as failure:
            await say(other)
        assert failure.value.executed == "no"
        await say(client)
        await asyncio.wait_for(stop, 5)


async def test_callers_that_do_not_call_have_the_drain_delay(mesh: Mesh, client: Client) -> None:
    service = echo(mesh, drain_delay=0.01)
    await service.start()
    await say(client)
    await asyncio.wait_for(service.stop(), 5)
    assert service.server.connections == 0


async def test_without_callers_it_ends_at_once(mesh: Mesh) -> None:
    service = echo(mesh, drain_delay=60)
    await service.start()
    await asyncio.wait_for(service.stop(), 5)
