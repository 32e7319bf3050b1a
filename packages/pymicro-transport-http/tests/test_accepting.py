"""Connections that come in while the listener stops accepting."""

from __future__ import annotations

import asyncio
import logging
import socket as _socket
from contextlib import ExitStack

import pytest

from pymicro.transport import Socket
from pymicro_transport_http._transport import HttpTransport

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


async def echo(socket: Socket) -> None:
    await socket.send(await socket.recv())


@pytest.mark.parametrize("turns", range(4))
async def test_what_was_accepted_is_served_or_reset(turns: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the loop was at with a connection: it is never left open with nobody behind it."""
    with ExitStack() as stack:
        async with HttpTransport() as transport:
            listener = await transport.listen("127.0.0.1:0", echo)
            port = int(listener.addresses[0].rpartition(":")[2])
            callers = [stack.enter_context(_socket.create_connection(("127.0.0.1", port))) for _ in range(5)]
            for caller in callers:
                caller.setblocking(False)
                caller.send(REQUEST)
            for _ in range(turns):
                await asyncio.sleep(0)
            await listener.stop_accepting()
            answers = await asyncio.wait_for(asyncio.gather(*(answer(caller) for caller in callers)), 5)
    assert set(answers) <= {b"HTTP/1.1 200", b"reset"}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def answer(caller: _socket.socket) -> bytes:
    try:
        return (await asyncio.get_running_loop().sock_recv(caller, 12)) or b"closed"
    except ConnectionResetError:
        return b"reset"
