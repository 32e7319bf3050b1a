"""Servers and peers that go away, and calls through it all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from pymicro.errors import DialFailed, Disconnected
from pymicro.message import Message
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_testing.servers import RabbitmqServer
from pymicro_transport_rabbitmq._transport import RabbitmqTransport

PATIENCE = 30.0

PEER = """
import asyncio, sys
from pymicro.plugins import Build
from pymicro.record import Node
from pymicro_transport_rabbitmq._transport import RabbitmqTransport

async def hold(socket):
    await socket.recv()
    print("received", flush=True)
    await asyncio.Event().wait()

async def main(server, kind, address):
    async with RabbitmqTransport(None, Build(addresses=(server,))) as transport:
        if kind == "listen":
            await transport.listen(address, hold)
            print("listens", flush=True)
        else:
            socket = await transport.dial(Node("py", address, transport.node_metadata), timeout=20)
            print("dialled", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


def node(address: str) -> Node:
    return Node("py-1", address, RabbitmqTransport.node_metadata)


async def echo(socket: Socket) -> None:
    while True:
        await socket.send(await socket.recv())


async def answers(transport: RabbitmqTransport, address: str) -> None:
    """Dial until it works, then say something."""
    while True:
        with suppress(DialFailed):
            socket = await transport.dial(node(address), timeout=1.0)
            break
        await asyncio.sleep(0.02)
    await socket.send(Message(body=b"hello"))
    assert (await socket.recv()).body == b"hello"
    await socket.aclose()


@pytest.fixture
async def peer(rabbitmq_server: RabbitmqServer) -> AsyncIterator[Callable[..., Any]]:
    """Starts another process that says what it does."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(kind: str, address: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PEER, rabbitmq_server.address, kind, address, stdout=asyncio.subprocess.PIPE
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def says(process: asyncio.subprocess.Process, what: str) -> None:
    assert process.stdout is not None
    assert await process.stdout.readline() == what.encode() + b"\n"


async def test_a_killed_listener_is_noticed_by_who_waits_for_an_answer(open_transport: Any, peer: Any) -> None:
    address, transport = str(uuid.uuid4()), await open_transport()
    async with asyncio.timeout(PATIENCE):
        process = await peer("listen", address)
        await says(process, "listens")
        socket = await transport.dial(node(address), timeout=PATIENCE)
        await socket.send(Message(body=b"hello"))
        await says(process, "received")
        waiting = asyncio.create_task(socket.recv())
        process.kill()
        began = time.monotonic()
        with pytest.raises(Disconnected):
            await waiting
        assert time.monotonic() - began < 5.0
        with pytest.raises(DialFailed, match="nobody listens"):
            await transport.dial(node(address), timeout=PATIENCE)


async def test_a_killed_listener_that_is_started_again_is_noticed_too(open_transport: Any, peer: Any) -> None:
    address, transport = str(uuid.uuid4()), await open_transport({"check_interval": 1.5})
    async with asyncio.timeout(PATIENCE):
        process = await peer("listen", address)
        await says(process, "listens")
        socket = await transport.dial(node(address), timeout=PATIENCE)
        waiting = asyncio.create_task(socket.recv())
        process.kill()
        await process.wait()
        again = await peer("listen", address)
        await says(again, "listens")
        with pytest.raises(Disconnected):
            await waiting  # though there is a queue of that name


async def test_a_killed_caller_is_noticed_while_its_handler_works(open_transport: Any, peer: Any) -> None:
    transport, sockets = await open_transport(), asyncio.Queue[Socket]()

    async def accept(socket: Socket) -> None:
        sockets.put_nowait(socket)
        await asyncio.Event().wait()

    listener = await transport.listen("", accept)
    async with asyncio.timeout(PATIENCE):
        process = await peer("dial", listener.addresses[0])
        socket = await sockets.get()
        await says(process, "dialled")
        gone = asyncio.Event()
        socket.on_disconnect = gone.set
        process.kill()
        await gone.wait()


async def test_a_listener_that_hangs_does_not_keep_who_dials(open_transport: Any, peer: Any) -> None:
    address, transport = str(uuid.uuid4()), await open_transport()
    async with asyncio.timeout(PATIENCE):
        process = await peer("listen", address)
        await says(process, "listens")
        os.kill(process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(DialFailed, match="no answer in time"):
            await transport.dial(node(address), timeout=0.3)
        assert time.monotonic() - began < 5.0


async def test_a_listener_is_back_when_its_queue_was_deleted(open_transport: Any) -> None:
    near, far = await open_transport(), await open_transport()
    listener = await far.listen("", echo)
    address = listener.addresses[0]
    async with asyncio.timeout(PATIENCE):
        socket = await near.dial(node(address), timeout=PATIENCE)
        connection = await near._link.connection()
        channel = await connection.channel()
        await channel.queue_delete(address)
        with pytest.raises(Disconnected):
            await socket.recv()
        await answers(near, address)
        await channel.close()


@pytest.mark.kills
async def test_a_server_that_is_killed_ends_sockets_and_its_return_brings_the_listener_back(
    open_transport: Any, rabbitmq_server: RabbitmqServer
) -> None:
    near, far = await open_transport(), await open_transport()
    listener = await far.listen("", echo)
    async with asyncio.timeout(2 * PATIENCE):
        socket = await near.dial(node(listener.addresses[0]), timeout=PATIENCE)
        await socket.send(Message(body=b"hello"))
        await socket.recv()
        waiting = asyncio.create_task(socket.recv())
        await rabbitmq_server.kill()
        with pytest.raises(Disconnected):
            await waiting
        with pytest.raises(Disconnected):
            await socket.send(Message())
        with pytest.raises(DialFailed):
            await near.dial(node(listener.addresses[0]), timeout=0.2)
        await rabbitmq_server.start()
        began = time.monotonic()
        await answers(near, listener.addresses[0])
        assert time.monotonic() - began < 5.0


@pytest.mark.kills
async def test_a_server_that_hangs_is_noticed_by_its_silence(
    open_transport: Any, rabbitmq_server: RabbitmqServer
) -> None:
    near, far = await open_transport({"heartbeat": 1}), await open_transport({"heartbeat": 1})
    listener = await far.listen("", echo)
    async with asyncio.timeout(2 * PATIENCE):
        socket = await near.dial(node(listener.addresses[0]), timeout=PATIENCE)
        waiting = asyncio.create_task(socket.recv())
        await rabbitmq_server.pause()
        try:
            with pytest.raises(Disconnected):
                await waiting
        finally:
            await rabbitmq_server.resume()
        began = time.monotonic()
        await answers(near, listener.addresses[0])
        assert time.monotonic() - began < 5.0
