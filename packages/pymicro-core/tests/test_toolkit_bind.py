"""Listening sockets: one, and several at one port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from pymicro.errors import ConfigurationError
from pymicro.plugins.toolkit import bind, bind_shared


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def accept_all(sock: socket.socket, stack: ExitStack) -> int:
    """How many connections wait."""
    sock.setblocking(False)
    accepted = 0
    with suppress(BlockingIOError):
        while True:
            stack.enter_context(sock.accept()[0])
            accepted += 1
    return accepted


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


async def test_one_socket_listens_at_a_port_of_the_kernel_s_choice() -> None:
    with closing(await bind("127.0.0.1", range(1))) as sock:
        connect(port_of(sock))


async def test_several_listen_at_one_port_and_share_connections(stack: ExitStack) -> None:
    sockets = [stack.enter_context(sock) for sock in await bind_shared("127.0.0.1", range(1), 3)]
    assert len(sockets) == 3
    assert len({port_of(sock) for sock in sockets}) == 1
    callers = [
        stack.enter_context(socket.create_connection(("127.0.0.1", port_of(sockets[0])), timeout=5)) for _ in range(64)
    ]
    accepted = [accept_all(sock, stack) for sock in sockets]
    assert all(accepted)
    assert sum(accepted) == len(callers)


async def test_a_port_that_is_shared_with_somebody_else_is_taken(stack: ExitStack) -> None:
    theirs = [stack.enter_context(sock) for sock in await bind_shared("127.0.0.1", range(1), 2)]
    port = port_of(theirs[0])
    with pytest.raises(ConfigurationError, match=f"port {port} on 127.0.0.1 is in use"):
        await bind_shared("127.0.0.1", range(port, port + 1), 2)
    with pytest.raises(ConfigurationError, match="in use: choose another with --server_address"):
        await bind("127.0.0.1", range(port, port + 1))
    with pytest.raises(ConfigurationError, match="in use: choose another with --metrics_address"):
        await bind("127.0.0.1", range(port, port + 1), flag="--metrics_address")


async def test_a_range_gives_the_first_free_port_to_all(stack: ExitStack) -> None:
    taken = stack.enter_context(await bind("127.0.0.1", range(1)))
    ports = range(port_of(taken), min(port_of(taken) + 20, 65536))
    sockets = [stack.enter_context(sock) for sock in await bind_shared("127.0.0.1", ports, 2)]
    (port,) = {port_of(sock) for sock in sockets}
    assert port in ports[1:]


async def test_an_address_of_another_machine_is_refused() -> None:
    for refused in (bind("203.0.113.1", range(1)), bind_shared("203.0.113.1", range(1), 2)):
        with pytest.raises(ConfigurationError, match="does not have that address"):
            await refused
