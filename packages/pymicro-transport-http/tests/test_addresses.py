"""Where the transport listens and what it dials."""

from __future__ import annotations

import asyncio
import socket as _socket
from contextlib import ExitStack

import pytest

from pymicro.errors import ConfigurationError, DialFailed
from pymicro.message import Message
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._transport import HttpTransport


async def echo(socket: Socket) -> None:
    await socket.send(await socket.recv())


def taken(stack: ExitStack, count: int = 1) -> int:
    """The first of `count` neighbouring ports that are all in use."""
    while True:
        with ExitStack() as attempt:
            first = attempt.enter_context(_socket.create_server(("127.0.0.1", 0)))
            port: int = first.getsockname()[1]
            try:
                for offset in range(1, count):
                    attempt.enter_context(_socket.create_server(("127.0.0.1", port + offset)))
            except OSError:
                continue
            stack.push(attempt.pop_all())
            return port


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("", "0.0.0.0"),
        (":0", "0.0.0.0"),
        ("0.0.0.0:0", "0.0.0.0"),
        ("127.0.0.1:0", "127.0.0.1"),
        ("localhost:0", "localhost"),
        ("[::1]:0", "[::1]"),
        ("[::]:0", "[::]"),
    ],
)
async def test_the_address_has_the_host_as_given_and_the_port_chosen(address: str, host: str) -> None:
    async with HttpTransport() as transport:
        listener = await transport.listen(address, echo)
        shown, _, port = listener.addresses[0].rpartition(":")
        assert shown == host
        assert len(listener.addresses) == 1
        near = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        client = await transport.dial(Node("x", f"{near}:{port}"), timeout=5)
        await client.send(Message(body=b"ping"))
        assert (await client.recv()).body == b"ping"
        await client.aclose()


async def test_a_port_in_use_is_named() -> None:
    async with HttpTransport() as transport:
        with ExitStack() as stack:
            port = taken(stack)
            with pytest.raises(ConfigurationError) as failure:
                await transport.listen(f"127.0.0.1:{port}", echo)
        assert str(failure.value) == f"port {port} on 127.0.0.1 is in use: choose another with --server_address"


async def test_a_range_takes_the_first_free_port() -> None:
    async with HttpTransport() as transport:
        with ExitStack() as stack:
            port = taken(stack, 2)
            listener = await transport.listen(f"127.0.0.1:{port}-{port + 50}", echo)
            assert port + 1 < int(listener.addresses[0].rpartition(":")[2]) <= port + 50
            with pytest.raises(ConfigurationError, match=f"all ports {port}-{port + 1} on 127.0.0.1 are in use"):
                await transport.listen(f"127.0.0.1:{port}-{port + 1}", echo)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("localhost", "has no port"),
        ("127.0.0.1:http", "'http' is no port"),
        ("127.0.0.1:65536", "'65536' is no port"),
        ("127.0.0.1:9-8", "ends before it begins"),
        ("::1:80", "needs brackets"),
        ("203.0.113.77:0", "this machine does not have that address"),
        ("no-such-host.invalid:0", "cannot be resolved"),
    ],
)
async def test_an_address_that_cannot_be_had_is_explained(address: str, problem: str) -> None:
    async with HttpTransport() as transport:
        with pytest.raises(ConfigurationError, match=problem):
            await transport.listen(address, echo)


async def test_a_socket_that_was_handed_down_is_served() -> None:
    async with HttpTransport(HttpOptions(backlog=7)) as transport:
        with _socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            listener = await transport.listen("ignored", echo, sock=bound)
            assert listener.addresses == (f"127.0.0.1:{port}",)
            client = await transport.dial(Node("x", f"127.0.0.1:{port}"), timeout=5)
            await client.send(Message(body=b"ping"))
            assert (await client.recv()).body == b"ping"
            await client.aclose()
            await listener.aclose()


async def test_a_refused_connection_says_so() -> None:
    with _socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        async with HttpTransport() as transport:
            with pytest.raises(DialFailed) as failure:
                await transport.dial(Node("x", address), timeout=5)
    assert str(failure.value) == f"{address}: connection refused"
    assert isinstance(failure.value.__cause__, ConnectionRefusedError)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("", "write host:port"),
        (":80", "write host:port"),
        ("host", "has no port"),
        ("host:0", "write host:port"),
        ("host:80-90", "write host:port"),
        ("a b:80", "not an address"),
        ("a\r\nEvil: yes:80", "not an address"),
        ("a..b:80", "not an address"),
        ("no-such-host.invalid:80", "cannot be resolved"),
    ],
)
async def test_an_address_that_cannot_be_dialled_is_explained(address: str, problem: str) -> None:
    async with HttpTransport() as transport:
        with pytest.raises(DialFailed, match=problem) as failure:
            await transport.dial(Node("x", address), timeout=5)
    assert failure.value.address == address


async def test_dialling_is_bounded_in_time() -> None:
    async with HttpTransport() as transport:
        listener = await transport.listen("127.0.0.1:0", echo)
        with pytest.raises(DialFailed, match="no connection within 0 s"):
            await transport.dial(Node("x", listener.addresses[0]), timeout=0)


async def test_a_raising_handler_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(socket: Socket) -> None:
        raise ValueError("broken")

    async with HttpTransport() as transport:
        listener = await transport.listen("127.0.0.1:0", fail)
        client = await transport.dial(Node("x", listener.addresses[0]), timeout=5)
        gone = asyncio.Event()
        client.on_disconnect = gone.set
        await client.send(Message())
        await asyncio.wait_for(gone.wait(), 5)
        await client.aclose()
    [record] = caplog.records
    assert record.getMessage().startswith("connection failed remote=127.0.0.1:")
    assert "ValueError" in record.getMessage()
