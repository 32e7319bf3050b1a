"""What travels between the transport and peers that are plain sockets, and how connections end."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from socket import SO_LINGER, SOL_SOCKET
from typing import TypeVar

import pytest

from pymicro.errors import (
    BadRequest,
    Closed,
    Disconnected,
    Error,
    ProtocolViolation,
    TooLarge,
    Unavailable,
    UsageError,
)
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build, Limits
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_testing.clock import ManualClock
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._socket import HttpSocket
from pymicro_transport_http._transport import HttpTransport

T = TypeVar("T")

LIMITS = Limits(message=100_000, headers=2000, buffer=10_000)
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nping"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


async def soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(5):
        return await awaitable


async def send_for_ever(socket: Socket) -> None:
    while True:
        await socket.send(Message(Headers(), b"x" * 10_000))


class Serving:
    """A listener whose sockets are handed to the test, and plain connections to it."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[Socket] = asyncio.Queue()
        self.address = ""

    async def accept(self, socket: Socket) -> None:
        self.sockets.put_nowait(socket)
        await asyncio.Event().wait()

    async def connect(self) -> tuple[Socket, asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection whose peer has spoken: an empty line, which a server skips (RFC 9112, section 2.2)."""
        reader, writer = await self.connect_silently()
        writer.write(b"\r\n")
        return await soon(self.sockets.get()), reader, writer

    async def connect_silently(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.address.rpartition(":")
        return await asyncio.open_connection(host, int(port))


@asynccontextmanager
async def serving(
    options: HttpOptions | None = None, *, limits: Limits = LIMITS, clock: ManualClock | None = None
) -> AsyncIterator[Serving]:
    build = Build(limits=limits) if clock is None else Build(limits=limits, clock=clock)
    async with HttpTransport(options, build) as transport:
        server = Serving()
        listener = await transport.listen("127.0.0.1:0", server.accept)
        server.address = listener.addresses[0]
        yield server


Dialogue = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def dialled(dialogue: Dialogue) -> AsyncIterator[tuple[Socket, str]]:
    """A socket of the transport to a plain server that holds `dialogue` with it, and the server's address."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await dialogue(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, HttpTransport(None, Build(limits=LIMITS)) as transport:
        socket = await transport.dial(Node("x", address), timeout=5)
        yield socket, address
        await socket.aclose()


class TestWire:
    @pytest.mark.parametrize("body", [b"", b"{}", b"x" * 50_000])
    async def test_a_request_as_it_is_written(self, body: bytes) -> None:
        arrived: asyncio.Queue[bytes] = asyncio.Queue()

        async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            arrived.put_nowait(head + await reader.readexactly(len(body)))

        async with dialled(dialogue) as (socket, address):
            headers = Headers({"Content-Type": "application/json"}).extend((("Micro-Id", "7"),))
            await socket.send(Message(headers, body))
            head = f"POST / HTTP/1.1\r\nHost: {address}\r\n"
            fields = f"Content-Type: application/json\r\nMicro-Id: 7\r\nContent-Length: {len(body)}\r\n\r\n"
            assert await soon(arrived.get()) == (head + fields).encode() + body

    @pytest.mark.parametrize("body", [b"", b"{}", b"x" * 50_000])
    async def test_a_response_as_it_is_written(self, body: bytes) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            await socket.send(Message(Headers({"Micro-Id": "7"}), body))
            await socket.aclose()
            head = f"HTTP/1.1 200 OK\r\nMicro-Id: 7\r\nContent-Length: {len(body)}\r\n\r\n"
            assert await soon(reader.read()) == head.encode() + body
            writer.close()

    async def test_requests_are_read_while_a_handler_is_at_work(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            writer.write(3 * REQUEST)
            assert [(await soon(socket.recv())).body for _ in range(3)] == 3 * [b"ping"]
            await socket.send(Message(Headers(), b"pong"))
            assert await soon(reader.readexactly(len(RESPONSE) + 4)) == RESPONSE + b"pong"
            writer.close()

    async def test_addresses_are_told(self) -> None:
        async with serving() as server:
            socket, _, writer = await server.connect()
            host, port = writer.get_extra_info("sockname")
            assert (socket.local, socket.remote) == (server.address, f"{host}:{port}")
            writer.close()


class TestRefusals:
    @pytest.mark.parametrize(
        ("request_bytes", "reason"),
        [
            (b"hello\r\n\r\n", "not HTTP/1.1"),
            (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "missing required Host header"),
            (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
        ],
    )
    async def test_who_does_not_speak_http_is_told_so(self, request_bytes: bytes, reason: str) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            writer.write(request_bytes)
            with pytest.raises(ProtocolViolation, match=reason):
                await soon(socket.recv())
            closing = asyncio.create_task(socket.aclose())
            answer = await soon(reader.read())
            writer.close()
            await soon(closing)
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n")
            assert b"Connection: close\r\n" in answer
            assert reason.encode() in answer.partition(b"\r\n\r\n")[2]

    async def test_after_the_first_request_there_is_no_such_answer(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            writer.write(REQUEST + b"hello\r\n\r\n")
            assert (await soon(socket.recv())).body == b"ping"
            with pytest.raises(ProtocolViolation):
                await soon(socket.recv())
            closing = asyncio.create_task(socket.aclose())
            assert await soon(reader.read()) == b""
            writer.close()
            await soon(closing)

    async def test_too_much_is_refused_at_once_and_the_answer_arrives(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n")
            with pytest.raises(TooLarge):
                await soon(socket.recv())
            assert socket.connected
            await socket.send(Message(Headers(), b"no"))
            closing = asyncio.create_task(socket.aclose())
            writer.write(b"x" * 300_000)  # the client goes on: it must not be reset before it reads
            await soon(writer.drain())
            assert (await soon(reader.read())).endswith(b"\r\n\r\nno")
            writer.close()
            await soon(closing)

    async def test_headers_over_the_limit_are_too_large(self) -> None:
        async with serving() as server:
            socket, _, writer = await server.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 2000 + b"\r\n\r\n")
            with pytest.raises(TooLarge):
                await soon(socket.recv())
            writer.close()

    async def test_who_sends_for_ever_is_cut_off(self) -> None:
        async with serving() as server:
            socket, _, writer = await server.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
            with pytest.raises(TooLarge):
                await soon(socket.recv())

            async def send_all() -> None:
                for _ in range(1000):
                    writer.write(b"x" * 100_000)
                    await writer.drain()

            with pytest.raises(ConnectionError):
                await soon(send_all())
            await soon(socket.aclose())

    async def test_a_refusal_is_an_error_of_its_code(self) -> None:
        async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"ping")
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nwhat?")

        async with dialled(dialogue) as (socket, _):
            await socket.send(Message(Headers(), b"ping"))
            with pytest.raises(BadRequest, match=r"400 Bad Request: what\?"):
                await soon(socket.recv())
            assert not socket.connected

    async def test_a_refusal_in_the_middle_of_a_send_can_be_read(self) -> None:
        async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

        async with dialled(dialogue) as (socket, _):
            with pytest.raises(Disconnected):
                await soon(send_for_ever(socket))
            with pytest.raises((TooLarge, Disconnected)):  # a reset may overtake the answer
                await soon(socket.recv())


class TestEnds:
    async def test_a_caller_that_leaves_is_noticed_while_its_handler_works(self) -> None:
        async with serving() as server:
            socket, _, writer = await server.connect()
            writer.write(REQUEST)
            await soon(socket.recv())
            gone = asyncio.Event()
            socket.on_disconnect = gone.set
            writer.close()
            await soon(gone.wait())
            assert not socket.connected
            with pytest.raises(Disconnected):
                await socket.send(Message())

    async def test_sending_to_a_peer_that_was_reset_ends_quietly(self, caplog: pytest.LogCaptureFixture) -> None:
        async with serving() as server:
            socket, _, writer = await server.connect()
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            writer.transport.abort()

            async def send_in_bursts() -> None:
                while True:
                    for _ in range(20):
                        await socket.send(Message(Headers(), b"pong"))
                    await asyncio.sleep(0)

            with pytest.raises(Disconnected):
                await soon(send_in_bursts())
        assert caplog.messages == []

    async def test_a_message_that_is_cut_off_is_said_to_be(self) -> None:
        async with serving() as server:
            socket, _, writer = await server.connect()
            writer.write(REQUEST[:-1])
            writer.close()
            with pytest.raises(Disconnected, match="in the middle of a message"):
                await soon(socket.recv())

    async def test_an_idle_connection_that_the_server_closes_is_noticed(self) -> None:
        async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"ping")
            writer.write(RESPONSE + b"pong")

        async with dialled(dialogue) as (socket, _):
            gone = asyncio.Event()
            socket.on_disconnect = gone.set
            await socket.send(Message(Headers(), b"ping"))
            assert (await soon(socket.recv())).body == b"pong"
            await soon(gone.wait())
            assert not socket.connected

    async def test_one_task_receives_at_a_time(self) -> None:
        async with serving() as server:
            socket, _, writer = await server.connect()
            receiving = asyncio.create_task(socket.recv())
            await asyncio.sleep(0)
            with pytest.raises(UsageError, match="one at a time"):
                await socket.recv()
            await socket.aclose()
            with pytest.raises(Closed):
                await receiving
            writer.close()

    async def test_a_full_inbox_stops_reading_and_an_empty_one_resumes_it(self) -> None:
        async with serving() as server:
            socket, _, writer = await server.connect()
            count = 5000
            writer.write(count * REQUEST)
            sending = asyncio.create_task(writer.drain())
            for _ in range(count):
                assert (await soon(socket.recv())).body == b"ping"
            await soon(sending)
            writer.close()
            with pytest.raises(Disconnected):
                await soon(socket.recv())


GOODBYE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Micro-Executed: no\r\nContent-Length: 18\r\n\r\nconnection closed\n"
)


class TestLastWord:
    """A server that closes a connection says that whatever crosses this on the wire was not executed."""

    async def answered(self, socket: Socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        await soon(socket.recv())
        await socket.send(Message(Headers(), b"pong"))
        await soon(reader.readexactly(len(RESPONSE) + 4))

    async def said(self, socket: Socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """What the server sends last."""
        await socket.aclose()
        rest = await soon(reader.read())
        writer.close()
        return rest

    async def test_on_a_connection_at_rest(self) -> None:
        async with serving() as server:
            connection = await server.connect()
            await self.answered(*connection)
            assert await self.said(*connection) == GOODBYE

    async def test_in_the_middle_of_a_request(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            await self.answered(socket, reader, writer)
            writer.write(REQUEST[:-1])
            assert isinstance(socket, HttpSocket)
            while socket.progress < 4:  # noqa: ASYNC110  # nothing tells of half a message
                await asyncio.sleep(0)
            assert await self.said(socket, reader, writer) == GOODBYE

    async def test_not_behind_an_answer_that_said_it(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            writer.write(REQUEST)
            await soon(socket.recv())
            await socket.send(Message(Headers({"Connection": "close"}), b"pong"))
            assert (await self.said(socket, reader, writer)).endswith(b"\r\n\r\npong")

    async def test_not_to_a_request_that_was_taken(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            await self.answered(socket, reader, writer)
            writer.write(REQUEST)
            await soon(socket.recv())
            assert await self.said(socket, reader, writer) == b""

    async def test_not_before_the_first_request(self) -> None:
        async with serving() as server:
            assert await self.said(*await server.connect()) == b""

    async def test_not_on_a_stream(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nMicro-Stream: 1\r\nContent-Length: 0\r\n\r\n")
            await soon(socket.recv())
            await socket.send(Message(Headers(), b"pong"))
            assert await self.said(socket, reader, writer) == RESPONSE + b"pong"

    async def test_not_after_a_refusal(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            await self.answered(socket, reader, writer)
            writer.write(b"garbage\r\n\r\n")
            with pytest.raises(ProtocolViolation):
                await soon(socket.recv())
            writer.write_eof()
            assert await self.said(socket, reader, writer) == b""

    async def test_a_request_that_crosses_it_was_not_executed(self) -> None:
        async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"ping")
            writer.write(RESPONSE + b"pong")
            await reader.readuntil(b"ping")
            writer.write(GOODBYE)

        async with dialled(dialogue) as (socket, _):
            await socket.send(Message(Headers(), b"ping"))
            assert (await soon(socket.recv())).body == b"pong"
            await socket.send(Message(Headers(), b"ping"))
            with pytest.raises(Unavailable, match="connection closed") as failure:
                await soon(socket.recv())
            assert failure.value.executed == "no"

    async def test_to_a_client_at_rest_it_is_the_end_of_the_connection(self) -> None:
        async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"ping")
            writer.write(RESPONSE + b"pong" + GOODBYE)

        async with dialled(dialogue) as (socket, _):
            gone = asyncio.Event()
            socket.on_disconnect = gone.set
            await socket.send(Message(Headers(), b"ping"))
            assert (await soon(socket.recv())).body == b"pong"
            await soon(gone.wait())
            assert not socket.connected
            for work in (socket.recv(), socket.send(Message())):
                with pytest.raises(Disconnected):
                    await soon(work)


class TestAccepting:
    async def test_a_connection_is_accepted_when_its_peer_has_spoken(self) -> None:
        async with serving() as server:
            _, writer = await server.connect_silently()
            other, _, other_writer = await server.connect()  # connections are made in their order
            assert server.sockets.empty()
            writer.write(b"P")
            assert (await soon(server.sockets.get())) is not other
            other_writer.close()
            writer.close()

    async def test_a_silent_connection_is_closed_with_the_listener(self) -> None:
        async with serving() as server:
            reader, writer = await server.connect_silently()
            _, _, other_writer = await server.connect()
        assert await soon(reader.read()) == b""
        other_writer.close()
        writer.close()

    async def test_a_silent_connection_that_goes_away_is_nobodys_business(self) -> None:
        async with serving() as server:
            _, writer = await server.connect_silently()
            writer.close()
            await writer.wait_closed()
            _, _, other_writer = await server.connect()
            assert server.sockets.empty()
            other_writer.close()

    async def test_a_get_that_is_no_upgrade_is_a_call(self) -> None:
        for size in (1, 10, 1000):
            async with serving() as server:
                _, writer = await server.connect_silently()
                request = b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nping"
                for at in range(0, len(request), size):
                    writer.write(request[at : at + size])
                    await asyncio.sleep(0)
                socket = await soon(server.sockets.get())
                assert (await soon(socket.recv())).body == b"ping"
                writer.close()


class TestTimeouts:
    OPTIONS = HttpOptions(header_timeout=10, idle_timeout=180)

    async def answered(self, server: Serving) -> tuple[Socket, asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which one call was made and answered."""
        socket, reader, writer = await server.connect()
        writer.write(REQUEST)
        await soon(socket.recv())
        await socket.send(Message(Headers(), b"pong"))
        await soon(reader.readexactly(len(RESPONSE) + 4))
        return socket, reader, writer

    async def arrival(self, socket: HttpSocket) -> None:
        """Wait for the next segment, or for the end."""
        before = socket.progress
        while socket.progress == before and socket.connected:  # noqa: ASYNC110  # nothing tells of half a message
            await asyncio.sleep(0)

    async def test_who_says_nothing_is_closed(self) -> None:
        clock = ManualClock()
        async with serving(self.OPTIONS, clock=clock) as server:
            socket, reader, writer = await server.connect()
            await clock.advance(9)
            assert socket.connected
            await clock.advance(4)
            with pytest.raises(Disconnected, match="no request head within 10 s"):
                await soon(socket.recv())
            assert await soon(reader.read()) == b""
            writer.close()

    async def test_a_head_that_trickles_is_closed(self) -> None:
        clock = ManualClock()
        async with serving(self.OPTIONS, clock=clock) as server:
            socket, _, writer = await self.answered(server)
            gone = asyncio.Event()
            socket.on_disconnect = gone.set
            assert isinstance(socket, HttpSocket)
            for at in range(13):
                writer.write(REQUEST[at : at + 1])
                await soon(self.arrival(socket))
                await clock.advance(1)
            await soon(gone.wait())
            writer.close()

    async def test_an_idle_connection_is_closed_late(self) -> None:
        clock = ManualClock()
        async with serving(self.OPTIONS, clock=clock) as server:
            socket, reader, writer = await self.answered(server)
            gone = asyncio.Event()
            socket.on_disconnect = gone.set
            await clock.advance(175)  # Go Micro's clients keep connections for 60 s
            assert socket.connected
            await clock.advance(50)
            await soon(gone.wait())
            with pytest.raises(Disconnected, match="idle for 180 s"):
                await socket.recv()
            assert await soon(reader.read()) == b""
            writer.close()

    async def test_each_call_begins_the_time_anew(self) -> None:
        clock = ManualClock()
        async with serving(self.OPTIONS, clock=clock) as server:
            socket, reader, writer = await self.answered(server)
            for _ in range(3):
                await clock.advance(120)
                writer.write(REQUEST)
                await soon(socket.recv())
                await socket.send(Message(Headers(), b"pong"))
                await soon(reader.readexactly(len(RESPONSE) + 4))
            assert socket.connected
            writer.close()

    async def test_a_handler_at_work_is_left_alone(self) -> None:
        clock = ManualClock()
        async with serving(self.OPTIONS, clock=clock) as server:
            socket, reader, writer = await server.connect()
            writer.write(REQUEST)
            await soon(socket.recv())
            await clock.advance(3600)
            await socket.send(Message(Headers(), b"late"))
            assert await soon(reader.readexactly(len(RESPONSE) + 4)) == RESPONSE + b"late"
            writer.close()

    async def test_a_stream_is_left_alone(self) -> None:
        clock = ManualClock()
        async with serving(self.OPTIONS, clock=clock) as server:
            socket, _, writer = await server.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nMicro-Stream: 1\r\nContent-Length: 0\r\n\r\n")
            await soon(socket.recv())
            await socket.send(Message())
            await clock.advance(3600)
            assert socket.connected
            writer.close()

    async def test_zero_is_no_timeout(self) -> None:
        clock = ManualClock()
        async with serving(HttpOptions(header_timeout=0, idle_timeout=0), clock=clock) as server:
            socket, _, writer = await server.connect()
            await clock.advance(3600)
            assert socket.connected
            writer.close()


class TestLimits:
    async def test_what_is_over_a_limit_is_not_written(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            with pytest.raises(TooLarge, match="100001 bytes"):
                await socket.send(Message(Headers(), b"x" * 100_001))
            with pytest.raises(TooLarge, match="2001 bytes"):
                await socket.send(Message(Headers({"A": "x" * 2000})))
            await socket.send(Message(Headers({"A": "x" * 1999}), b"pong"))
            await socket.aclose()
            assert (await soon(reader.read())).count(b"HTTP/1.1") == 1
            writer.close()

    async def test_who_does_not_read_makes_the_sender_wait(self) -> None:
        async with serving() as server:
            socket, reader, writer = await server.connect()
            count = 0

            async def send() -> None:
                nonlocal count
                while count < 3000:
                    await socket.send(Message(Headers(), b"x" * 10_000))
                    count += 1

            sending = asyncio.create_task(send())
            before = -1
            while count != before:
                before = count
                await asyncio.wait({sending}, timeout=0.05)
            assert not sending.done()
            await soon(reader.readexactly(3000 * 10_000))
            await soon(sending)
            writer.close()


async def test_a_client_error_is_a_pymicro_error() -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"ping")
        writer.write(b"SSH-2.0-server\r\n")

    async with dialled(dialogue) as (socket, address):
        await socket.send(Message(Headers(), b"ping"))
        with pytest.raises((ProtocolViolation, Error), match=address):
            await soon(socket.recv())
