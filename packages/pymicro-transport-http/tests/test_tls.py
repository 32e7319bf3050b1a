"""TLS: who is trusted, who is not, and certificates that change on disk."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from pymicro.errors import ConfigurationError, ConnectionFailed, DialFailed
from pymicro.message import Message
from pymicro.plugins import TLS, Build
from pymicro.record import Node
from pymicro.transport import Listener, Socket
from pymicro_testing.clock import ManualClock
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._transport import HttpTransport


class Authority(Protocol):
    """See conftest.py."""

    ca: str

    def issue(self, stem: str, *hosts: str) -> tuple[str, str]: ...


async def echo(peer: Socket) -> None:
    while True:
        await peer.send(await peer.recv())


@asynccontextmanager
async def listening(
    tls: TLS, address: str = "127.0.0.1:0", clock: ManualClock | None = None, options: HttpOptions | None = None
) -> AsyncIterator[Listener]:
    build = Build(tls=tls, logger=logging.getLogger("pymicro.transport.http"))
    if clock is not None:
        build = Build(tls=tls, clock=clock)
    async with HttpTransport(options, build) as transport:
        yield await transport.listen(address, echo)


async def ask(address: str, tls: TLS, body: bytes = b"ping") -> bytes:
    """Dial with these settings and make one call."""
    async with HttpTransport(None, Build(tls=tls)) as transport:
        peer = await transport.dial(Node("x", address), timeout=5)
        async with asyncio.timeout(5):
            await peer.send(Message(body=body))
            return (await peer.recv()).body


async def test_messages_pass(authority: Authority) -> None:
    cert, key = authority.issue("server", "127.0.0.1")
    async with listening(TLS(cert=cert, key=key)) as listener:
        for body in (b"", b"ping", bytes(300_000)):
            assert await ask(listener.addresses[0], TLS(ca=authority.ca), body) == body


async def test_host_names_and_ipv6_are_verified_too(authority: Authority) -> None:
    cert, key = authority.issue("server", "localhost", "::1")
    for address in ("localhost:0", "[::1]:0"):
        async with listening(TLS(cert=cert, key=key), address) as listener:
            assert await ask(listener.addresses[0], TLS(ca=authority.ca)) == b"ping"


async def test_an_untrusted_certificate_is_refused(authority: Authority, stranger: Authority) -> None:
    cert, key = stranger.issue("server", "127.0.0.1")
    async with listening(TLS(cert=cert, key=key)) as listener:
        for tls in (TLS(ca=authority.ca), TLS(secure=True)):
            with pytest.raises(DialFailed, match="the TLS certificate is not trusted") as failure:
                await ask(listener.addresses[0], tls)
            assert failure.value.address == listener.addresses[0]


async def test_a_certificate_of_another_host_is_refused(authority: Authority) -> None:
    cert, key = authority.issue("server", "other.example", "10.0.0.1")
    async with listening(TLS(cert=cert, key=key)) as listener:
        with pytest.raises(DialFailed, match=r"not valid for '127\.0\.0\.1'"):
            await ask(listener.addresses[0], TLS(ca=authority.ca))


async def test_clients_can_be_required_to_have_a_certificate(authority: Authority, stranger: Authority) -> None:
    cert, key = authority.issue("server", "127.0.0.1")
    own_cert, own_key = authority.issue("client", "client.example")
    foreign_cert, foreign_key = stranger.issue("foreign", "client.example")
    async with listening(TLS(cert=cert, key=key, ca=authority.ca, client_auth=True)) as listener:
        address = listener.addresses[0]
        assert await ask(address, TLS(cert=own_cert, key=own_key, ca=authority.ca)) == b"ping"
        for tls in (TLS(ca=authority.ca), TLS(cert=foreign_cert, key=foreign_key, ca=authority.ca)):
            with pytest.raises(ConnectionFailed):  # TLS 1.3 tells the client after its side of the handshake
                await ask(address, tls)


async def test_new_connections_get_the_certificate_that_is_on_disk(authority: Authority, stranger: Authority) -> None:
    clock = ManualClock()
    cert, key = stranger.issue("server", "127.0.0.1")
    async with listening(TLS(cert=cert, key=key), clock=clock) as listener:
        address = listener.addresses[0]
        async with HttpTransport(None, Build(tls=TLS(ca=stranger.ca))) as transport:
            old = await transport.dial(Node("x", address), timeout=5)
            for new, path in zip(authority.issue("renewed", "127.0.0.1"), (cert, key), strict=True):
                shutil.copy(new, path)
            await clock.advance(5)
            assert await ask(address, TLS(ca=authority.ca)) == b"ping"
            await old.send(Message(body=b"still here"))
            assert (await old.recv()).body == b"still here"


async def test_a_server_without_certificate_is_a_configuration_error(authority: Authority) -> None:
    with pytest.raises(ConfigurationError, match="a server needs a certificate"):
        async with listening(TLS(ca=authority.ca)):
            pass


async def test_a_missing_file_is_found_on_opening(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        async with HttpTransport(None, Build(tls=TLS(ca=str(tmp_path / "missing.pem")))):
            pass


async def test_a_tls_client_at_a_plain_server_is_told(authority: Authority) -> None:
    async with listening(TLS()) as listener:
        with pytest.raises(DialFailed, match="the peer does not speak TLS"):
            await ask(listener.addresses[0], TLS(ca=authority.ca))


async def test_a_plain_client_at_a_tls_server_is_logged_for_those_who_look(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = authority.issue("server", "127.0.0.1")
    with caplog.at_level(logging.DEBUG, "pymicro.transport.http"):
        async with listening(TLS(cert=cert, key=key)) as listener:
            with pytest.raises(ConnectionFailed):
                await ask(listener.addresses[0], TLS())
    assert [record.getMessage().split(" remote")[0] for record in caplog.records] == ["TLS handshake failed"]


async def test_a_handshake_is_bounded_in_time(authority: Authority) -> None:
    cert, key = authority.issue("server", "127.0.0.1")
    async with listening(TLS(cert=cert, key=key), options=HttpOptions(header_timeout=0.05)) as listener:
        host, _, port = listener.addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_a_server_that_never_answers_the_handshake_is_given_up(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = Node("x", f"127.0.0.1:{silent.getsockname()[1]}")
        async with HttpTransport(None, Build(tls=TLS(ca=authority.ca))) as transport:
            with pytest.raises(DialFailed, match=r"no connection within 0\.05 s"):
                await transport.dial(node, timeout=0.05)


async def test_closing_in_the_middle_of_a_handshake_leaves_nothing(authority: Authority) -> None:
    cert, key = authority.issue("server", "127.0.0.1")
    async with listening(TLS(cert=cert, key=key)) as listener:
        host, _, port = listener.addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await listener.aclose()
            assert await reader.read() == b""
        writer.close()
