"""How two sides come to speak channels, and what happens when one of them does not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import pytest

from pymicro.errors import Closed, DialFailed
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build, Limits
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_testing.clock import ManualClock
from pymicro_transport_http._channel import Channel
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._socket import HttpSocket
from pymicro_transport_http._transport import HttpTransport

T = TypeVar("T")

LIMITS = Limits(message=100_000, headers=2000, buffer=10_000)
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: pymicro-channels/1\r\nPymicro-Window: 7000\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: pymicro-channels/1\r\n"
    b"Pymicro-Window: 10000\r\n\r\n"
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npong"

#: A message without headers on channel 1, and one on channel 2.
PING = bytes.fromhex("00000004 00000001 00000000 00 00") + b"ping"
PONG = bytes.fromhex("00000004 00000002 00000000 00 00") + b"pong"


async def soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(5):
        return await awaitable


def channels(address: str, version: str = "1") -> Node:
    return Node("x", address, {"channels": version})


async def echo(socket: Socket) -> None:
    while True:
        await socket.send(await socket.recv())


async def asks(socket: Socket, body: bytes = b"ping") -> bytes:
    await socket.send(Message(Headers(), body))
    return (await soon(socket.recv())).body


class TestListening:
    @asynccontextmanager
    async def connected(
        self, options: HttpOptions | None = None, clock: ManualClock | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A plain connection to a server that echoes."""
        build = Build(limits=LIMITS) if clock is None else Build(limits=LIMITS, clock=clock)
        async with HttpTransport(options, build) as transport:
            listener = await transport.listen("127.0.0.1:0", echo)
            host, _, port = listener.addresses[0].rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            yield reader, writer
            writer.close()

    async def test_who_asks_for_channels_gets_them(self) -> None:
        async with self.connected() as (reader, writer):
            writer.write(REQUEST)
            answer = await soon(reader.readuntil(b"\r\n\r\n"))
            assert re.fullmatch(SWITCHED[:-2] + rb"Pymicro-Process: [0-9a-f]{16}\r\n\r\n", answer)
            writer.write(PING)
            assert await soon(reader.readexactly(len(PING))) == PING

    async def test_the_request_may_come_in_any_pieces_and_with_frames_behind_it(self) -> None:
        for size in (1, 2, 3, 50, 1000):
            async with self.connected() as (reader, writer):
                data = REQUEST + PING
                for at in range(0, len(data), size):
                    writer.write(data[at : at + size])
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                assert (await soon(reader.readuntil(b"\r\n\r\n"))).startswith(SWITCHED[:-2])
                assert await soon(reader.readexactly(len(PING))) == PING

    @pytest.mark.parametrize("window", [b"", b"0", b"-1", b"x", b"1.5", b"1000000000", b"9" * 30, "٣".encode()])
    async def test_a_window_that_makes_no_sense_is_refused(self, window: bytes) -> None:
        async with self.connected() as (reader, writer):
            writer.write(REQUEST.replace(b"7000", window))
            assert (await soon(reader.readuntil(b"\r\n\r\n"))).startswith(b"HTTP/1.1 400 ")

    @pytest.mark.parametrize("name", [b"h2c", b"websocket", b"pymicro-channels/2", b"pymicro-channels"])
    async def test_other_protocols_are_refused(self, name: bytes) -> None:
        async with self.connected() as (reader, writer):
            writer.write(REQUEST.replace(b"pymicro-channels/1", name))
            assert (await soon(reader.readuntil(b"\r\n\r\n"))).startswith(b"HTTP/1.1 400 ")

    async def test_a_connection_that_has_carried_http_stays_with_it(self) -> None:
        async with self.connected() as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nping")
            await soon(reader.readuntil(b"ping"))
            writer.write(REQUEST)
            assert b"101" not in await soon(reader.read())

    async def test_a_listener_may_be_told_to_speak_http_only(self) -> None:
        async with self.connected(HttpOptions(channels=False)) as (reader, writer):
            writer.write(REQUEST)
            assert (await soon(reader.readuntil(b"\r\n\r\n"))).startswith(b"HTTP/1.1 400 ")

    async def test_a_request_that_does_not_end_is_not_waited_for_long(self) -> None:
        clock = ManualClock()
        async with self.connected(clock=clock) as (reader, writer):
            writer.write(REQUEST[:20])
            await clock.advance(20)
            assert await soon(reader.read()) == b""


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server of bytes that is asked for channels.

    Attributes:
        asked: how many connections asked, and with what.
        called: how many were plain HTTP calls, which it answers.
    """

    def __init__(self, answer: bytes | None) -> None:
        self.asked: list[bytes] = []
        self.called = 0
        self.address = ""
        self.answer = answer

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                self.asked.append(head)
                if self.answer is None:
                    await reader.read()
                else:
                    writer.write(self.answer)
            else:
                self.called += 1
                writer.write(ANSWER)
            if self.answer == SWITCHED or head.startswith(b"POST"):
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class TestDialling:
    @asynccontextmanager
    async def peer(
        self, answer: bytes | None, options: HttpOptions | None = None, clock: ManualClock | None = None
    ) -> AsyncIterator[tuple[Peer, HttpTransport]]:
        peer = Peer(answer)
        server = await asyncio.start_server(peer.hold, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        peer.address = f"{host}:{port}"
        build = Build(limits=LIMITS) if clock is None else Build(limits=LIMITS, clock=clock)
        async with server, HttpTransport(options, build) as transport:
            yield peer, transport

    async def test_what_is_asked(self) -> None:
        async with self.peer(SWITCHED) as (peer, transport):
            socket = await transport.dial(channels(peer.address), timeout=5)
            assert isinstance(socket, Channel)
            assert peer.asked == [
                f"GET / HTTP/1.1\r\nHost: {peer.address}\r\nConnection: Upgrade\r\n"
                "Upgrade: pymicro-channels/1\r\nPymicro-Window: 10000\r\n\r\n".encode()
            ]
            await socket.aclose()

    async def test_nothing_is_asked_of_nodes_that_do_not_offer_it(self) -> None:
        async with self.peer(SWITCHED) as (peer, transport):
            for node in (Node("x", peer.address), channels(peer.address, "2"), channels(peer.address, "")):
                socket = await transport.dial(node, timeout=5)
                assert isinstance(socket, HttpSocket)
                assert await asks(socket) == b"pong"
                await socket.aclose()
            assert (len(peer.asked), peer.called) == (0, 3)

    async def test_a_caller_may_be_told_to_speak_http_only(self) -> None:
        async with self.peer(SWITCHED, HttpOptions(channels=False)) as (peer, transport):
            socket = await transport.dial(channels(peer.address), timeout=5)
            assert await asks(socket) == b"pong"
            await socket.aclose()
            assert peer.asked == []

    @pytest.mark.parametrize(
        "answer",
        [
            ANSWER,
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 101 Switching Protocols\r\nPymicro-Window: 10\r\nUpgrade: pymicro-channels/1\r\n\r\n",
            SWITCHED.replace(b"10000", b"0"),
            SWITCHED.replace(b"10000", b"many"),
            SWITCHED.replace(b"Pymicro-Window", b"Window"),
            SWITCHED.replace(b"pymicro-channels/1", b"websocket"),
            SWITCHED.replace(b"\r\n\r\n", b"\r\nX: ") + 9000 * b"x",
            9000 * b"garbage ",
            b"SSH-2.0-server\r\n\r\n",
            bytes(range(256)) + b"\r\n\r\n",
        ],
        ids=lambda answer: answer[:25],
    )
    async def test_any_other_answer_means_http_for_a_minute(self, answer: bytes) -> None:
        clock = ManualClock()
        async with self.peer(answer, clock=clock) as (peer, transport):
            for seconds, times in ((0, 1), (59, 1), (2, 2)):
                await clock.advance(seconds)
                socket = await transport.dial(channels(peer.address), timeout=5)
                assert isinstance(socket, HttpSocket)
                assert await asks(socket) == b"pong"
                await socket.aclose()
                assert len(peer.asked) == times

    async def test_a_server_that_speaks_http_only_is_called_so(self) -> None:
        async with (
            HttpTransport(HttpOptions(channels=False)) as far,
            HttpTransport() as near,
            AsyncExitStack() as stack,
        ):
            assert "channels" not in far.node_metadata
            listener = await far.listen("127.0.0.1:0", echo)
            for _ in range(3):
                socket = await near.dial(channels(listener.addresses[0]), timeout=5)
                stack.push_async_callback(socket.aclose)
                assert await asks(socket) == b"ping"

    async def test_a_transport_says_that_it_takes_channels(self) -> None:
        assert HttpTransport().node_metadata == {"channels": "1"}

    async def test_a_peer_that_hangs_up_instead_of_answering_is_not_reached(self) -> None:
        async with self.peer(b"") as (peer, transport):
            for answer in (b"", b"HTTP/1.1 101 Swi"):
                peer.answer = answer
                with pytest.raises(DialFailed):
                    await transport.dial(channels(peer.address), timeout=5)
            peer.answer = SWITCHED
            socket = await transport.dial(channels(peer.address), timeout=5)
            assert isinstance(socket, Channel)
            await socket.aclose()

    async def test_a_peer_that_never_answers_is_given_up(self) -> None:
        async with self.peer(None) as (peer, transport):
            with pytest.raises(DialFailed, match=r"no connection within 0\.05 s"):
                await transport.dial(channels(peer.address), timeout=0.05)

    async def test_all_who_dial_at_once_ask_once(self) -> None:
        async with self.peer(SWITCHED) as (peer, transport):
            dials = [transport.dial(channels(peer.address), timeout=5) for _ in range(20)]
            sockets = await asyncio.gather(*dials)
            assert len(peer.asked) == 1
            assert {socket.local for socket in sockets} == {sockets[0].local}
            await asyncio.gather(*(socket.aclose() for socket in sockets))

    async def test_one_who_gives_up_does_not_stop_the_others(self) -> None:
        async with self.peer(None) as (peer, transport):
            first, second = (asyncio.create_task(transport.dial(channels(peer.address), timeout=5)) for _ in range(2))
            while not peer.asked:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            assert first.cancelled()
            assert not second.done()
            await transport.aclose()
            with pytest.raises(Closed):
                await soon(second)

    async def test_a_cancelled_dial_is_cancelled_though_the_transport_closes(self) -> None:
        for turns in range(10):
            async with self.peer(None) as (peer, transport):
                dialling = asyncio.create_task(transport.dial(channels(peer.address), timeout=5))
                while not peer.asked:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0)
                closing = asyncio.create_task(transport.aclose())
                for _ in range(turns):
                    await asyncio.sleep(0)
                cancelled = dialling.cancel()
                await asyncio.wait([dialling, closing])
                assert dialling.cancelled() == cancelled

    async def test_frames_right_behind_the_answer_are_not_lost(self) -> None:
        async with self.peer(SWITCHED) as (peer, transport):
            peer.answer = SWITCHED + bytes.fromhex("00000000 00000000 00000000 06 01")  # open nothing here
            dialling = asyncio.create_task(transport.dial(channels(peer.address), timeout=5))
            async with asyncio.timeout(5):
                while len(peer.asked) < 2:  # noqa: ASYNC110  # so that it goes to another connection
                    await asyncio.sleep(0)
            peer.answer = SWITCHED
            assert isinstance(await soon(dialling), Channel)
            await dialling.result().aclose()


class TestProcesses:
    """Several processes serve at one address; the kernel chooses which one a connection reaches."""

    @asynccontextmanager
    async def peers(
        self, *names: str, clock: ManualClock | None = None
    ) -> AsyncIterator[tuple[list[str], Node, HttpTransport]]:
        """Connections reach the processes in this order, and the last one from then on. The list says who was."""
        reached: list[str] = []
        writers: list[asyncio.StreamWriter] = []

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await reader.readuntil(b"\r\n\r\n")
            reached.append(names[min(len(reached), len(names) - 1)])
            writer.write(SWITCHED[:-2] + b"Pymicro-Process: %b\r\n\r\n" % reached[-1].encode())

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        address = "{}:{}".format(*server.sockets[0].getsockname())
        build = Build(limits=LIMITS) if clock is None else Build(limits=LIMITS, clock=clock)
        async with server, HttpTransport(None, build) as transport:
            yield reached, Node("x", address, {"channels": "1", "workers": "2"}), transport
            await transport.aclose()
            for writer in writers:
                writer.close()

    async def test_channels_are_spread_over_the_processes(self) -> None:
        async with self.peers("a", "a", "b") as (reached, node, transport):
            sockets = [await transport.dial(node, timeout=5) for _ in range(10)]
            connections = [socket.local for socket in sockets]
            assert sorted(connections.count(each) for each in {*connections}) == [5, 5]
            assert {*reached} == {"a", "b"}

    async def test_a_process_that_is_not_found_is_looked_for_now_and_then(self) -> None:
        clock = ManualClock()
        async with self.peers("a", clock=clock) as (reached, node, transport):
            sockets = [await transport.dial(node, timeout=5) for _ in range(10)]
            assert len({socket.local for socket in sockets}) == 1
            asked = len(reached)
            assert asked < 20
            await clock.advance(59)
            await transport.dial(node, timeout=5)
            assert len(reached) == asked
            await clock.advance(2)
            await transport.dial(node, timeout=5)
            assert len(reached) > asked

    @pytest.mark.parametrize("workers", ["", "x", "0", "-1", "1.5", "99999", "٣"])
    async def test_a_number_that_makes_no_sense_is_one(self, workers: str) -> None:
        async with self.peers("a", "b") as (reached, node, transport):
            node.metadata["workers"] = workers
            sockets = [await transport.dial(node, timeout=5) for _ in range(3)]
            assert len({socket.local for socket in sockets}) == len(reached) == 1
