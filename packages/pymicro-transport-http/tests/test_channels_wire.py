"""Channels between this transport and peers that are bytes, which also do what no peer should."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import NamedTuple, TypeVar

import pytest

from pymicro.errors import DialFailed, Disconnected, ProtocolViolation, TooLarge, Unavailable
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build, Limits
from pymicro.record import Node
from pymicro.transport import Listener, Socket
from pymicro_transport_http._transport import HttpTransport

T = TypeVar("T")

LIMITS = Limits(message=200_000, headers=2000, buffer=100_000)
PIECE = 64 * 1024
HEADER = struct.Struct(">IIIBB")
WHOLE, BEGIN, MORE, END, HEAD, CREDIT, CLOSE = range(7)


async def soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(5):
        return await awaitable


class Frame(NamedTuple):
    kind: int
    channel: int
    payload: bytes = b""
    value: int = 0
    head: int = 0

    def encoded(self) -> bytes:
        return HEADER.pack(len(self.payload), self.channel, self.value, self.kind, self.head) + self.payload


class Wire:
    """One end of a connection of channels, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *frames: Frame | bytes) -> None:
        self.writer.write(b"".join(frame if isinstance(frame, bytes) else frame.encoded() for frame in frames))

    async def frame(self) -> Frame:
        size, channel, value, kind, head = HEADER.unpack(await soon(self.reader.readexactly(HEADER.size)))
        return Frame(kind, channel, await soon(self.reader.readexactly(size)), value, head)

    async def frames(self, count: int) -> list[Frame]:
        return [await self.frame() for _ in range(count)]

    async def echo(self, channel: int = 90) -> None:
        """Go to the other side and back: everything that was sent before was dealt with."""
        self.send(Frame(WHOLE, channel, b"echo"))
        while (await self.frame()).payload != b"echo":
            pass

    async def ended(self) -> bool:
        """Whether the other side has ended the connection; else it never comes back."""
        with suppress(ConnectionError):
            await soon(self.reader.read())
        self.writer.close()
        return True


class Serving:
    """A listener. Sockets whose first message is `echo` send everything back; the others are the test's."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[tuple[Socket, Message]] = asyncio.Queue()
        self.listener: Listener | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def accept(self, socket: Socket) -> None:
        message = await socket.recv()
        if message.body != b"echo":
            self.sockets.put_nowait((socket, message))
            await asyncio.Event().wait()
        while True:
            await socket.send(message)
            message = await socket.recv()

    async def connect(self, window: int = LIMITS.buffer) -> Wire:
        assert self.listener is not None
        host, _, port = self.listener.addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self._writers.append(writer)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: pymicro-channels/1\r\n"
            b"Pymicro-Window: %d\r\n\r\n" % window
        )
        assert (await soon(reader.readuntil(b"\r\n\r\n"))).startswith(b"HTTP/1.1 101 ")
        return Wire(reader, writer)

    async def accepted(self) -> Socket:
        return (await soon(self.sockets.get()))[0]

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def serving(limits: Limits = LIMITS) -> AsyncIterator[Serving]:
    server = Serving()
    async with HttpTransport(None, Build(limits=limits)) as transport:
        server.listener = await transport.listen("127.0.0.1:0", server.accept)
        yield server
        server.close()


class Dialling:
    """A transport that dials a server of bytes, and the connections that it made."""

    def __init__(self) -> None:
        self.transport = HttpTransport(None, Build(limits=LIMITS))
        self.wires: asyncio.Queue[Wire] = asyncio.Queue()
        self.address = ""
        self.window = LIMITS.buffer
        self.made = 0
        self.leaving = False
        self._writers: list[asyncio.StreamWriter] = []

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: pymicro-channels/1\r\n"
            b"Pymicro-Window: %d\r\n\r\n" % self.window
        )
        self.made += 1
        self._writers.append(writer)
        wire = Wire(reader, writer)
        if self.leaving:
            wire.send(Frame(CLOSE, 0, head=1))
        self.wires.put_nowait(wire)

    async def dial(self) -> Socket:
        return await soon(self.transport.dial(Node("x", self.address, {"channels": "1"}), timeout=5))

    async def sent(self, *bodies: bytes) -> tuple[Wire, list[Socket]]:
        """The connection, and sockets that have sent a message each."""
        sockets = [await self.dial() for _ in bodies]
        wire = await soon(self.wires.get())
        for number, (socket, body) in enumerate(zip(sockets, bodies, strict=True), 1):
            await socket.send(Message(Headers(), body))
            assert await wire.frame() == Frame(WHOLE, number, body)
        return wire, sockets

    async def aclose(self) -> None:
        await self.transport.aclose()
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def dialling() -> AsyncIterator[Dialling]:
    client = Dialling()
    server = await asyncio.start_server(client.hold, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    client.address = f"{host}:{port}"
    async with server, client.transport:
        yield client
        await client.aclose()


class TestServing:
    async def test_a_call(self) -> None:
        async with serving() as server:
            wire = await server.connect()
            fields = b"Micro-Id\x007\0"
            wire.send(Frame(HEAD, 0, b"A\0b\0", head=1), Frame(WHOLE, 1, fields + b"ping", len(fields), 1))
            socket, message = await soon(server.sockets.get())
            assert dict(message.headers) == {"A": "b", "Micro-Id": "7"}
            assert message.body == b"ping"
            await socket.send(Message(Headers({"C": "d"}), b"pong"))
            assert await wire.frame() == Frame(WHOLE, 1, b"C\0d\0pong", 4)
            await socket.aclose()
            assert await wire.frame() == Frame(CLOSE, 1, value=1)

    async def test_numbers_grow_and_may_skip(self) -> None:
        async with serving() as server:
            wire = await server.connect()
            for number in (1, 2, 7, 1000, 2**32 - 1):
                await wire.echo(number)

    async def test_a_number_that_was_used_is_of_a_closed_channel(self) -> None:
        async with serving() as server:
            wire = await server.connect()
            await wire.echo(5)
            wire.send(Frame(CLOSE, 5, value=1))
            for number in (5, 4, 0):
                wire.send(Frame(WHOLE, number, b"echo"), Frame(BEGIN, number), Frame(MORE, number), Frame(END, number))
                wire.send(Frame(CREDIT, number, value=3), Frame(CLOSE, number))
            wire.send(Frame(WHOLE, 6, b"echo"))
            assert await wire.frame() in (Frame(CLOSE, 5, value=1), Frame(WHOLE, 6, b"echo"))
            await wire.echo(7)
            assert server.sockets.empty()

    async def test_what_is_sent_within_the_window_is_within_it_however_it_is_cut(self) -> None:
        async with serving() as server:
            wire = await server.connect()
            wire.send(Frame(BEGIN, 1, b"x"), *(1000 * [Frame(MORE, 1, b"x")]), Frame(END, 1, b"x"))
            assert len((await soon(server.sockets.get()))[1].body) == 1002

    async def drained(self, socket: Socket) -> None:
        while True:
            await soon(socket.recv())

    @pytest.mark.parametrize("size", [0, 1, 1000, PIECE])
    async def test_who_sends_more_than_its_credit_breaks_the_rules(self, size: int) -> None:
        async with serving() as server:
            sibling, wire = await server.connect(), await server.connect()
            wire.send(Frame(WHOLE, 1, b"hello"))
            socket = await server.accepted()
            gone = asyncio.Event()
            socket.on_disconnect = gone.set
            frame = Frame(WHOLE, 1, size * b"x").encoded()
            wire.send(*(LIMITS.buffer // len(frame) * [frame]))
            await wire.echo(2)
            assert socket.connected
            wire.send(*((LIMITS.buffer + 2 * PIECE) // len(frame) * [frame]))
            await soon(gone.wait())
            assert await wire.ended()
            with pytest.raises(ProtocolViolation, match="more than its credit"):
                await self.drained(socket)
            await sibling.echo()

    @pytest.mark.parametrize(
        "data",
        [
            Frame(7, 1).encoded(),
            Frame(WHOLE, 1, b"ping", head=1).encoded(),
            Frame(WHOLE, 1, b"ping", value=5).encoded(),
            Frame(BEGIN, 9).encoded() + Frame(WHOLE, 9).encoded(),
            Frame(HEAD, 0, b"no pair", head=1).encoded(),
            Frame(HEAD, 0, 3000 * b"a\0\0", head=1).encoded(),
            HEADER.pack(2**32 - 1, 1, 0, MORE, 0),
            HEADER.pack(2**31, 9, 2**31, WHOLE, 0),
            b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
        ids=lambda data: data[:14].hex(),
    )
    async def test_a_violation_ends_its_connection_only(self, data: bytes) -> None:
        async with serving() as server:
            sibling, wire = await server.connect(), await server.connect()
            wire.send(Frame(WHOLE, 1, b"hello"), Frame(WHOLE, 2, b"hello"))
            sockets = [await server.accepted(), await server.accepted()]
            gone = asyncio.Semaphore(0)
            for socket in sockets:
                socket.on_disconnect = gone.release
            wire.send(data)
            for socket in sockets:
                await soon(gone.acquire())
                assert not socket.connected
                with pytest.raises(ProtocolViolation):
                    await soon(socket.recv())
                with pytest.raises(Disconnected):
                    await socket.send(Message())
            assert gone.locked()
            assert await wire.ended()
            await sibling.echo()

    async def test_headers_over_the_limit_are_refused_with_an_answer(self) -> None:
        async with serving() as server:
            wire = await server.connect()
            wire.send(Frame(WHOLE, 1, b"hello"))
            socket = await server.accepted()
            fields = b"A\0" + 2000 * b"x" + b"\0"
            wire.send(Frame(WHOLE, 1, fields + b"ping", len(fields)))
            with pytest.raises(TooLarge):
                await soon(socket.recv())
            await socket.send(Message(Headers(), b"no"))
            await socket.aclose()
            frames = [frame for frame in await wire.frames(3) if frame.kind != CREDIT]
            assert frames == [Frame(WHOLE, 1, b"no"), Frame(CLOSE, 1, value=1)]
            await wire.echo()

    async def test_a_message_over_the_limit_is_read_to_its_end(self) -> None:
        async with serving() as server:
            wire = await server.connect()
            wire.send(Frame(WHOLE, 1, b"hello"))
            socket = await server.accepted()
            credit = LIMITS.buffer - 19
            wire.send(Frame(BEGIN, 1, b"x"))
            for _ in range(40):  # the peer goes on, within its credit
                wire.send(Frame(MORE, 1, 30_000 * b"x"))
                credit -= 30_014
                while credit <= 0:
                    frame = await wire.frame()
                    assert (frame.kind, frame.channel) == (CREDIT, 1)
                    credit += frame.value
            wire.send(Frame(END, 1, b"x"))
            with pytest.raises(TooLarge):
                await soon(socket.recv())
            await wire.echo()

    async def test_credit_for_what_is_thrown_away_is_given_in_few_frames(self) -> None:
        """Or a peer that does not read would make this side buffer as much as it sends."""
        async with serving() as server:
            wire = await server.connect()
            wire.send(Frame(WHOLE, 1, b"hello"))
            await server.accepted()
            fields = b"A\0" + 2000 * b"x" + b"\0"
            wire.send(Frame(BEGIN, 1, fields, len(fields)), *(3000 * [Frame(MORE, 1)]))
            wire.send(Frame(WHOLE, 2, b"echo"))
            count = 0
            while (await wire.frame()).kind == CREDIT:
                count += 1
            assert count < 5

    async def test_credit_lets_the_sender_go_on(self) -> None:
        async with serving() as server:
            wire = await server.connect(window=1000)
            wire.send(Frame(WHOLE, 1, b"hello"))
            socket = await server.accepted()
            await socket.send(Message(Headers(), 986 * b"x"))
            assert len((await wire.frame()).payload) == 986
            sending = asyncio.create_task(socket.send(Message(Headers(), b"more")))
            await wire.echo()
            assert not sending.done()
            wire.send(Frame(CREDIT, 1, value=1))
            assert await wire.frame() == Frame(WHOLE, 1, b"more")
            await soon(sending)

    async def test_more_channels_than_a_connection_takes_are_refused(self) -> None:
        async with serving() as server:
            wire = await server.connect()
            wire.send(*(Frame(WHOLE, number, b"hello") for number in range(1, 1002)))
            assert await wire.frame() == Frame(CLOSE, 1001, head=1)
            for _ in range(1000):
                await server.accepted()
            wire.send(Frame(WHOLE, 1, b"more"))
            assert server.sockets.empty()

    async def test_who_accepts_no_more_says_so_and_refuses(self) -> None:
        async with serving() as server:
            wire, silent = await server.connect(), await server.connect()
            await wire.echo(1)
            assert server.listener is not None
            await server.listener.stop_accepting()
            assert [await wire.frame(), await silent.frame()] == 2 * [Frame(CLOSE, 0, head=1)]
            wire.send(Frame(WHOLE, 2, b"hello"), Frame(BEGIN, 3, b"x"), Frame(END, 3, b"y"), Frame(WHOLE, 1, b"echo"))
            assert [await wire.frame(), await wire.frame()] == [Frame(CLOSE, 2, head=1), Frame(CLOSE, 3, head=1)]
            assert await wire.frame() == Frame(WHOLE, 1, b"echo")
            assert server.sockets.empty()

    async def test_a_peer_that_reads_nothing_is_not_answered_for_ever(self) -> None:
        """Refusals wait to be written, so no more requests are read."""
        async with serving() as server:
            assert server.listener is not None
            wire = await server.connect()
            await wire.echo(1)
            await server.listener.stop_accepting()
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # no write transport only
            blocks, block = 0, 20_000

            async def flood() -> None:
                nonlocal blocks
                while True:
                    start = 2 + blocks * block
                    wire.send(*(Frame(WHOLE, number) for number in range(start, start + block)))
                    await wire.writer.drain()
                    blocks += 1

            flooding = asyncio.create_task(flood())
            before = -1
            while blocks != before:
                before = blocks
                assert blocks < 100, "nothing stops it"
                await asyncio.wait({flooding}, timeout=0.2)
            flooding.cancel()
            await asyncio.wait([flooding])
            wire.writer.transport.abort()

    async def test_sending_to_a_peer_that_was_reset_ends_quietly(self, caplog: pytest.LogCaptureFixture) -> None:
        async with serving() as server:
            wire = await server.connect(window=999_999_999)
            wire.send(*(Frame(WHOLE, number, b"hello") for number in range(1, 11)))
            sockets = [await server.accepted() for _ in range(10)]
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            wire.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            wire.writer.transport.abort()

            async def send_in_bursts(socket: Socket) -> None:
                while True:
                    for _ in range(20):
                        await socket.send(Message(Headers(), 20_000 * b"x"))
                        await socket.send(Message(Headers(), b"pong"))
                    await asyncio.sleep(0)

            results = await soon(asyncio.gather(*map(send_in_bursts, sockets), return_exceptions=True))
            assert {type(result) for result in results} == {Disconnected}
        assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []


class TestDialling:
    async def test_a_call(self) -> None:
        async with dialling() as client:
            wire, (socket,) = await client.sent(b"ping")
            wire.send(Frame(HEAD, 0, b"A\0b\0", head=1), Frame(WHOLE, 1, b"C\0d\0pong", 4, 1))
            reply = await soon(socket.recv())
            assert (dict(reply.headers), reply.body) == ({"A": "b", "C": "d"}, b"pong")
            await socket.aclose()
            assert await wire.frame() == Frame(CLOSE, 1, value=1)
            assert await wire.ended()

    async def test_a_channel_has_its_number_from_its_first_message(self) -> None:
        async with dialling() as client:
            first, second, unused = [await client.dial() for _ in range(3)]
            wire = await soon(client.wires.get())
            await second.send(Message(Headers(), b"second"))
            await unused.aclose()
            await first.send(Message(Headers(), b"first"))
            assert await wire.frames(2) == [Frame(WHOLE, 1, b"second"), Frame(WHOLE, 2, b"first")]
            await first.aclose()
            await second.aclose()
            assert await wire.frames(2) == [Frame(CLOSE, 2), Frame(CLOSE, 1)]

    async def test_a_large_message_goes_out_in_pieces_and_others_between(self) -> None:
        async with dialling() as client:
            client.window = 1000
            large, small = await client.dial(), await client.dial()
            wire = await soon(client.wires.get())
            body = bytes(range(256)) * 700
            sending = asyncio.create_task(large.send(Message(Headers({"A": "b"}), body)))
            assert await wire.frame() == Frame(BEGIN, 1, b"A\0b\0" + body[:PIECE], 4)
            await small.send(Message(Headers(), b"small"))
            assert await wire.frame() == Frame(WHOLE, 2, b"small")
            wire.send(Frame(CREDIT, 1, value=PIECE + 18))
            assert await wire.frame() == Frame(MORE, 1, body[PIECE : 2 * PIECE])
            assert not sending.done()
            wire.send(Frame(CREDIT, 1, value=PIECE + 14))
            assert await wire.frame() == Frame(END, 1, body[2 * PIECE :])
            await soon(sending)

    async def test_a_refused_channel_means_that_nothing_was_executed(self) -> None:
        async with dialling() as client:
            wire, (refused, sibling) = await client.sent(b"one", b"two")
            wire.send(Frame(CLOSE, 1, head=1))
            with pytest.raises(Unavailable) as failure:
                await soon(refused.recv())
            assert failure.value.executed == "no"
            wire.send(Frame(WHOLE, 2, b"pong"))
            assert (await soon(sibling.recv())).body == b"pong"
            await client.dial()
            assert client.made == 2, "a peer that refused a channel was asked for another"

    async def test_a_peer_that_wants_no_more_channels_is_left_in_peace(self) -> None:
        async with dialling() as client:
            wire, (old,) = await client.sent(b"one")
            wire.send(Frame(CLOSE, 0, head=1), Frame(WHOLE, 1, b"pong"))
            assert (await soon(old.recv())).body == b"pong"
            new, other = await client.dial(), await client.dial()
            second = await soon(client.wires.get())
            await new.send(Message(Headers(), b"new"))
            assert await second.frame() == Frame(WHOLE, 1, b"new")
            assert client.made == 2
            await old.send(Message(Headers(), b"again"))
            assert await wire.frame() == Frame(WHOLE, 1, b"again")
            await other.aclose()

    @pytest.mark.parametrize(
        ("taken", "answered", "executed"),
        [(0, 0, "no"), (1, 0, "maybe"), (1, 1, "no"), (2, 1, "maybe"), (7, 1, "maybe")],
    )
    async def test_the_end_of_a_channel_says_what_was_taken(self, taken: int, answered: int, executed: str) -> None:
        async with dialling() as client:
            wire, (socket,) = await client.sent(b"one")
            if answered:
                wire.send(Frame(WHOLE, 1, b"pong"))
                await soon(socket.recv())
                await socket.send(Message(Headers(), b"two"))
            wire.send(Frame(CLOSE, 1, value=taken))
            with pytest.raises((Unavailable, Disconnected)) as failure:
                await soon(socket.recv())
            error = failure.value
            assert isinstance(error, Unavailable | Disconnected)
            assert error.executed == executed

    async def test_what_came_before_the_end_is_still_delivered(self) -> None:
        async with dialling() as client:
            wire, (socket,) = await client.sent(b"one")
            wire.send(Frame(WHOLE, 1, b"pong"), Frame(WHOLE, 1, b"pang"), Frame(CLOSE, 1, value=1))
            assert [(await soon(socket.recv())).body for _ in range(2)] == [b"pong", b"pang"]
            with pytest.raises(Disconnected):
                await soon(socket.recv())

    async def test_frames_for_channels_that_never_were_are_ignored(self) -> None:
        async with dialling() as client:
            wire, (socket,) = await client.sent(b"one")
            for number in (0, 2, 2**32 - 1):
                wire.send(Frame(WHOLE, number, b"x"), Frame(BEGIN, number), Frame(END, number))
                wire.send(Frame(CREDIT, number, value=5), Frame(CLOSE, number))
            wire.send(Frame(WHOLE, 1, b"pong"))
            assert (await soon(socket.recv())).body == b"pong"

    @pytest.mark.parametrize(
        "data", [Frame(7, 1).encoded(), HEADER.pack(2**32 - 1, 1, 0, END, 0), b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    )
    async def test_a_violation_ends_the_connection_and_the_next_call_has_another(self, data: bytes) -> None:
        async with dialling() as client:
            wire, sockets = await client.sent(b"one", b"two")
            wire.send(data)
            for socket in sockets:
                with pytest.raises(ProtocolViolation):
                    await soon(socket.recv())
                assert not socket.connected
                await socket.aclose()
            assert await wire.ended()
            await client.sent(b"three")
            assert client.made == 2

    async def test_a_peer_that_breaks_the_connection_is_dialled_anew(self) -> None:
        async with dialling() as client:
            wire, (socket,) = await client.sent(b"one")
            wire.writer.close()
            with pytest.raises(Disconnected):
                await soon(socket.recv())
            await client.sent(b"two")
            assert client.made == 2

    async def test_a_peer_that_takes_no_channel_at_all_is_given_up(self) -> None:
        async with dialling() as client:
            client.leaving = True
            with suppress(DialFailed):  # its word may come right behind the answer or a little later
                socket = await client.transport.dial(Node("x", client.address, {"channels": "1"}), timeout=0.1)
                with pytest.raises(Disconnected):
                    await soon(socket.recv())
                await socket.aclose()
            wires = [client.wires.get_nowait() for _ in range(client.made)]
            for wire in wires[:-1]:
                assert await wire.ended(), "a connection of no use was kept"
