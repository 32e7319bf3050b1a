"""Many sockets on one connection, between two of these transports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeVar

import pytest

from pymicro.errors import Closed, Disconnected, TooLarge, Unavailable
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import TLS, Build, Limits
from pymicro.record import Node
from pymicro.transport import Listener, Socket
from pymicro_testing.clock import ManualClock
from pymicro_testing.faults import FaultProxy
from pymicro_transport_http._options import HttpOptions
from pymicro_transport_http._transport import HttpTransport

T = TypeVar("T")

MIB = 1024 * 1024
LIMITS = Limits(message=4 * MIB, headers=2000, buffer=100_000)
PIECE = 64 * 1024


class Authority(Protocol):
    """See conftest.py."""

    ca: str

    def issue(self, stem: str, *hosts: str) -> tuple[str, str]: ...


async def soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(10):
        return await awaitable


def text(body: str, **headers: str) -> Message:
    return Message(Headers({name.replace("_", "-"): value for name, value in headers.items()}), body.encode())


class Pair:
    """A transport that dials, one that listens, and the sockets that were accepted."""

    def __init__(self, near: HttpTransport, listener: Listener, sockets: asyncio.Queue[Socket]) -> None:
        self.near = near
        self.listener = listener
        self.sockets = sockets
        self.address = listener.addresses[0]

    async def dial(self) -> Socket:
        return await soon(self.near.dial(Node("x", self.address, {"channels": "1"}), timeout=5))

    async def link(self) -> tuple[Socket, Socket]:
        """Both ends of a channel; the dialling one sent a message and got it back."""
        client = await self.dial()
        await client.send(text("hello"))
        server = await soon(self.sockets.get())
        await server.send(await soon(server.recv()))
        assert (await soon(client.recv())).body == b"hello"
        return client, server

    async def links(self, count: int) -> tuple[list[Socket], list[Socket]]:
        pairs = [await self.link() for _ in range(count)]
        return [client for client, _ in pairs], [server for _, server in pairs]


@asynccontextmanager
async def pair(
    options: HttpOptions | None = None,
    *,
    near_limits: Limits = LIMITS,
    far_limits: Limits = LIMITS,
    clock: ManualClock | None = None,
    tls: TLS | None = None,
) -> AsyncIterator[Pair]:
    clocks: Mapping[str, Any] = {} if clock is None else {"clock": clock}
    secrets: Mapping[str, Any] = {} if tls is None else {"tls": tls}
    sockets: asyncio.Queue[Socket] = asyncio.Queue()

    async def accept(socket: Socket) -> None:
        sockets.put_nowait(socket)
        await asyncio.Event().wait()

    async with (
        HttpTransport(options, Build(limits=far_limits, **clocks, **secrets)) as far,
        HttpTransport(options, Build(limits=near_limits, **clocks, **secrets)) as near,
    ):
        yield Pair(near, await far.listen("127.0.0.1:0", accept), sockets)


async def echoing(socket: Socket) -> None:
    while True:
        await socket.send(await socket.recv())


@asynccontextmanager
async def echo(*sockets: Socket) -> AsyncIterator[None]:
    """Send back whatever comes."""
    tasks = [asyncio.create_task(echoing(socket)) for socket in sockets]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def asks(client: Socket, message: Message) -> Message:
    await client.send(message)
    return await client.recv()


class Flood:
    """Sends the same message for ever, in a task of its own."""

    def __init__(self, socket: Socket, message: Message) -> None:
        self.sent = 0
        self._socket = socket
        self._message = message
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._socket.send(self._message)
            self.sent += 1

    async def stuck(self, turn: Callable[[], Awaitable[object]]) -> None:
        """Wait until it gets no further in many `turn`s."""
        quiet, before = 0, 0
        while quiet < 200:
            await soon(turn())
            quiet = quiet + 1 if self.sent == before else 0
            before = self.sent
            assert self.sent * len(self._message.body) < 20 * MIB, "nothing stops it"

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


class TestSharing:
    async def test_many_channels_are_one_connection(self) -> None:
        async with pair() as both:
            clients, servers = await both.links(200)
            assert len({client.local for client in clients}) == 1
            assert {server.remote for server in servers} == {clients[0].local}
            async with echo(*servers):
                messages = [text(str(number), Micro_Id=str(number)) for number in range(200)]
                replies = await soon(asyncio.gather(*map(asks, clients, messages)))
            assert replies == messages

    async def test_a_thousand_channels_are_as_many_as_a_connection_takes(self) -> None:
        async with pair() as both:
            clients = [await both.dial() for _ in range(1001)]
            await asyncio.gather(*(client.send(text("hello")) for client in clients))
            remotes = [(await soon(both.sockets.get())).remote for _ in clients]
            assert sorted(remotes.count(remote) for remote in {*remotes}) == [1, 1000]

    async def test_channels_are_used_again_and_again(self) -> None:
        async with pair() as both:
            (client,), (server,) = await both.links(1)
            async with echo(server):
                for number in range(300):
                    reply = await soon(asks(client, text(str(number))))
                    assert reply.body == b"%d" % number

    async def test_with_tls_too(self, authority: Authority) -> None:
        cert, key = authority.issue("server", "127.0.0.1")
        async with pair(tls=TLS(cert=cert, key=key, ca=authority.ca)) as both:
            clients, servers = await both.links(20)
            assert len({client.local for client in clients}) == 1
            async with echo(*servers):
                bodies = [bytes([number]) * number * 10_000 for number in range(20)]
                messages = [Message(Headers({"A": "b"}), body) for body in bodies]
                assert await soon(asyncio.gather(*map(asks, clients, messages))) == messages

    async def test_headers_are_whole_however_often_they_are_sent(self) -> None:
        constant = Headers({"Content-Type": "application/json", "X-Text": "Grüße 日本"})
        async with pair() as both:
            (client,), (server,) = await both.links(1)
            async with echo(server):
                for number in range(5):
                    headers = constant.extend((("Micro-Id", str(number)), ("X-Empty", "")))
                    assert (await soon(asks(client, Message(headers)))).headers == headers

    async def test_the_connection_closes_with_its_last_channel(self) -> None:
        async with pair() as both:
            clients, servers = await both.links(2)
            await clients[0].aclose()
            async with echo(servers[1]):
                await soon(asks(clients[1], text("still here")))
            await clients[1].aclose()
            client, server = await both.link()
            assert client.local != clients[0].local
            assert server.remote == client.local

    async def test_a_peer_that_does_not_read_is_not_waited_for_when_the_last_channel_closes(self) -> None:
        async with pair() as both, FaultProxy(both.address) as proxy:
            client = await soon(both.near.dial(Node("x", proxy.address, {"channels": "1"}), timeout=5))
            await proxy.pause()
            flood = [Flood(client, Message(Headers(), 50_000 * b"x"))]
            for _ in range(100):
                sibling = await soon(both.near.dial(Node("x", proxy.address, {"channels": "1"}), timeout=5))
                flood.append(Flood(sibling, Message(Headers(), 50_000 * b"x")))
            await asyncio.wait([each.task for each in flood], timeout=0.1)  # until the network is full
            for each in flood:
                await each.stop()
                await each._socket.aclose()
            assert both.near._shared is not None
            async with asyncio.timeout(5):
                while both.near._shared._live:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.01)


class TestFairness:
    async def test_a_large_message_holds_up_nobody(self) -> None:
        async with pair() as both:
            (large, small), servers = await both.links(2)
            order: list[str] = []

            async def ask(client: Socket, body: bytes, name: str) -> None:
                assert (await asks(client, Message(Headers(), body))).body == body
                order.append(name)

            async with echo(*servers):
                waiting = asyncio.create_task(ask(large, 4 * MIB * b"x", "large"))
                await asyncio.sleep(0)
                for _ in range(5):
                    await soon(ask(small, b"ping", "small"))
                await soon(waiting)
            assert order == [*(5 * ["small"]), "large"]

    @pytest.mark.parametrize("size", [0, 1000, 50_000, PIECE, PIECE + 1, MIB, 4 * MIB])
    async def test_who_does_not_take_makes_the_sender_wait_and_nobody_else(self, size: int) -> None:
        async with pair() as both:
            (slow, quick), (not_reading, reading) = await both.links(2)
            message = Message(Headers(), size * b"x")
            async with echo(reading):
                flood = Flood(slow, message)
                await flood.stuck(lambda: asks(quick, text("ping")))
                waiting = flood.sent
                assert waiting * (size + 14) < LIMITS.buffer + 2 * (size + PIECE)
                for _ in range(waiting):
                    assert (await soon(not_reading.recv())).body == message.body
                assert (await soon(not_reading.recv())).body == message.body  # it goes on
                await flood.stop()

    async def test_a_caller_that_does_not_take_makes_the_server_wait_and_nobody_else(self) -> None:
        async with pair() as both:
            (slow, quick), (streaming, reading) = await both.links(2)
            async with echo(reading):
                flood = Flood(streaming, text(300_000 * "x"))
                await flood.stuck(lambda: asks(quick, text("ping")))
                assert flood.sent < 4
                for _ in range(5):
                    assert len((await soon(slow.recv())).body) == 300_000
                await flood.stop()

    async def test_the_smaller_window_holds(self) -> None:
        for near, far in ((1, LIMITS.buffer), (LIMITS.buffer, 1), (1, 1)):
            limits = [Limits(message=MIB, headers=2000, buffer=buffer) for buffer in (near, far)]
            async with pair(near_limits=limits[0], far_limits=limits[1]) as both:
                clients, servers = await both.links(2)
                async with echo(*servers):
                    messages = [text(""), text("ping"), text(300_000 * "x", A="b")]
                    for message in messages:
                        replies = await soon(asyncio.gather(*(asks(client, message) for client in clients)))
                        assert replies == [message, message]


class TestEnds:
    async def test_a_cancelled_call_leaves_its_siblings_alone(self) -> None:
        async with pair() as both:
            clients, servers = await both.links(3)
            gone = asyncio.Event()
            servers[0].on_disconnect = gone.set
            call = asyncio.create_task(asks(clients[0], text("slow")))
            await soon(servers[0].recv())
            call.cancel()
            await asyncio.wait([call])
            await clients[0].aclose()
            await soon(gone.wait())
            assert not servers[0].connected
            async with echo(*servers[1:]):
                for client in clients[1:]:
                    await soon(asks(client, text("ping")))

    async def test_a_message_that_is_cut_off_ends_its_channel_only(self) -> None:
        async with pair() as both:
            (large, small), servers = await both.links(2)
            gone = asyncio.Event()
            servers[0].on_disconnect = gone.set
            await large.send(text(4 * MIB * "x"))
            sending = asyncio.create_task(large.send(text(4 * MIB * "x")))  # nobody takes the first
            async with echo(servers[1]):
                await soon(asks(small, text("ping")))
                assert not sending.done()
                sending.cancel()
                await asyncio.wait([sending])
                assert not large.connected
                await soon(gone.wait())
                await soon(asks(small, text("ping")))
            assert len((await soon(servers[0].recv())).body) == 4 * MIB
            with pytest.raises(Disconnected):
                await soon(servers[0].recv())

    @pytest.mark.parametrize("side", ["client", "server"])
    async def test_the_end_of_a_channel_is_told_to_its_peer_once(self, side: str) -> None:
        async with pair() as both:
            clients, servers = await both.links(2)
            leaving, staying = (clients, servers) if side == "client" else (servers, clients)
            told = [asyncio.Semaphore(0), asyncio.Semaphore(0)]
            for socket, semaphore in zip(staying, told, strict=True):
                socket.on_disconnect = semaphore.release
            await leaving[0].aclose()
            await leaving[0].aclose()
            await soon(told[0].acquire())
            with pytest.raises(Disconnected):
                await staying[0].recv()
            with pytest.raises(Disconnected):
                await staying[0].send(text("late"))
            async with echo(servers[1]):
                await soon(asks(clients[1], text("ping")))
            assert all(semaphore.locked() for semaphore in told)

    async def test_what_comes_for_a_closed_channel_is_ignored(self) -> None:
        async with pair() as both:
            clients, servers = await both.links(2)
            flood = Flood(servers[0], text("late"))
            await clients[0].aclose()
            with pytest.raises(Disconnected):
                await soon(flood.task)
            async with echo(servers[1]):
                await soon(asks(clients[1], text("ping")))

    async def test_a_lost_connection_is_told_to_every_channel_once(self) -> None:
        async with pair() as both, FaultProxy(both.address) as proxy, AsyncExitStack() as stack:
            told = asyncio.Semaphore(0)
            sockets = []
            for _ in range(10):
                client = await soon(both.near.dial(Node("x", proxy.address, {"channels": "1"}), timeout=5))
                stack.push_async_callback(client.aclose)
                await client.send(text("hello"))
                server = await soon(both.sockets.get())
                assert (await soon(server.recv())).body == b"hello"
                sockets += [client, server]
            for socket in sockets:
                socket.on_disconnect = told.release
            waiting = [asyncio.create_task(socket.recv()) for socket in sockets]
            await proxy.stop()
            for each in waiting:
                with pytest.raises(Disconnected):
                    await soon(each)
            for _ in sockets:
                await soon(told.acquire())
            assert told.locked()
            for socket in sockets:
                assert not socket.connected
                with pytest.raises(Disconnected):
                    await socket.send(text("late"))

    async def test_sending_into_a_lost_connection_ends_quietly(self, caplog: pytest.LogCaptureFixture) -> None:
        async with pair() as both, FaultProxy(both.address) as proxy:
            node = Node("x", proxy.address, {"channels": "1"})
            clients = [await soon(both.near.dial(node, timeout=5)) for _ in range(20)]
            await clients[0].send(text("hello"))
            proxy.cut(after=1, reset=True)

            async def send_in_bursts(client: Socket) -> None:
                while True:
                    for _ in range(20):
                        await client.send(text("ping"))
                        await client.send(text(20_000 * "x"))
                    await asyncio.sleep(0)

            results = await soon(asyncio.gather(*map(send_in_bursts, clients), return_exceptions=True))
            assert {type(result) for result in results} == {Disconnected}
            await asyncio.gather(*(client.aclose() for client in clients))
        assert caplog.messages == []

    async def test_closing_the_transport_ends_its_channels(self) -> None:
        async with pair() as both:
            clients, servers = await both.links(3)
            waiting = asyncio.create_task(clients[0].recv())
            await asyncio.sleep(0)
            await soon(both.near.aclose())
            for client in clients:
                with pytest.raises(Closed):
                    await soon(client.recv() if client is not clients[0] else waiting)
            for server in servers:
                with pytest.raises(Disconnected):
                    await soon(server.recv())

    async def test_closing_the_listener_ends_its_channels(self) -> None:
        async with pair() as both:
            clients, _ = await both.links(3)
            await soon(both.listener.aclose())
            for client in clients:
                with pytest.raises(Disconnected):
                    await soon(client.recv())


class TestNotExecuted:
    """What a caller learns about requests that cross the end of their channel."""

    async def test_a_request_that_nobody_took(self) -> None:
        async with pair() as both:
            (client,), (server,) = await both.links(1)
            await client.send(text("crossing"))
            await server.aclose()
            with pytest.raises(Unavailable) as failure:
                await soon(client.recv())
            assert failure.value.executed == "no"

    async def test_a_first_request_that_nobody_took(self) -> None:
        async with pair() as both:
            client = await both.dial()
            await client.send(text("crossing"))
            await (await soon(both.sockets.get())).aclose()
            with pytest.raises(Unavailable) as failure:
                await soon(client.recv())
            assert failure.value.executed == "no"

    async def test_a_request_that_was_taken_may_have_been_executed(self) -> None:
        async with pair() as both:
            (client,), (server,) = await both.links(1)
            await client.send(text("taken"))
            await soon(server.recv())
            await server.aclose()
            with pytest.raises(Disconnected):
                await soon(client.recv())

    async def test_a_channel_at_rest_is_just_over(self) -> None:
        async with pair() as both:
            (client,), (server,) = await both.links(1)
            await server.aclose()
            with pytest.raises(Disconnected):
                await soon(client.recv())

    async def test_a_stream_is_never_said_not_to_have_been_executed(self) -> None:
        async with pair() as both:
            client = await both.dial()
            await client.send(text("", Micro_Stream="1"))
            server = await soon(both.sockets.get())
            await soon(server.recv())
            await server.send(text("", Micro_Stream="1"))
            await client.send(text("crossing"))
            await server.aclose()
            assert (await soon(client.recv())).body == b""
            with pytest.raises(Disconnected):
                await soon(client.recv())

    async def test_a_listener_that_accepts_no_more_refuses_new_channels(self) -> None:
        async with pair() as both:
            (old,), (server,) = await both.links(1)
            new = await both.dial()
            await both.listener.stop_accepting()
            await new.send(text("crossing"))
            with pytest.raises(Unavailable) as failure:
                await soon(new.recv())
            assert failure.value.executed == "no"
            async with echo(server):
                await soon(asks(old, text("still served")))
            await new.aclose()


class TestLimits:
    async def test_a_message_over_the_limit_is_not_written(self) -> None:
        async with pair() as both:
            client, sibling = await both.dial(), await both.dial()
            with pytest.raises(TooLarge, match="4194305 bytes"):
                await client.send(Message(Headers(), bytes(4 * MIB + 1)))
            with pytest.raises(TooLarge, match="2001 bytes"):
                await client.send(Message(Headers({"A": 2000 * "x"})))
            await sibling.send(text("one"))
            assert (await soon((await soon(both.sockets.get())).recv())).body == b"one"
            await client.send(Message(Headers({"A": 1999 * "x"}), b"two"))  # the socket is sound
            assert (await soon((await soon(both.sockets.get())).recv())).body == b"two"

    @pytest.mark.parametrize(
        "message", [Message(Headers(), 3000 * b"x"), Message(Headers(), 300_000 * b"x"), text("", A=1000 * "x")]
    )
    async def test_a_limit_of_the_peer_concerns_one_channel(self, message: Message) -> None:
        small = Limits(message=2000, headers=500, buffer=10_000)
        async with pair(far_limits=small) as both:
            clients, servers = await both.links(2)
            sending = asyncio.create_task(clients[0].send(message))
            with pytest.raises(TooLarge) as failure:
                await soon(servers[0].recv())
            assert failure.value.executed == "no"
            await servers[0].send(text("too large"))  # there is one answer left
            await soon(sending)
            assert (await soon(clients[0].recv())).body == b"too large"
            await servers[0].aclose()
            async with echo(servers[1]):
                await soon(asks(clients[1], text("ping")))

    async def test_an_answer_over_the_limit_concerns_one_call(self) -> None:
        small = Limits(message=2000, headers=500, buffer=10_000)
        async with pair(near_limits=small) as both:
            clients, servers = await both.links(2)
            await clients[0].send(text("ping"))
            sending = asyncio.create_task(servers[0].send(text(300_000 * "x")))
            with pytest.raises(TooLarge) as failure:
                await soon(clients[0].recv())
            assert failure.value.executed == "maybe"
            await clients[0].aclose()
            with pytest.raises(Disconnected):
                await soon(sending)
            async with echo(servers[1]):
                await soon(asks(clients[1], text("ping")))


class TestTimeouts:
    OPTIONS = HttpOptions(header_timeout=10, idle_timeout=180)

    async def test_a_connection_is_closed_when_all_channels_were_at_rest_for_long(self) -> None:
        clock = ManualClock()
        async with pair(self.OPTIONS, clock=clock) as both:
            clients, servers = await both.links(2)
            gone = asyncio.Semaphore(0)
            for socket in (*clients, *servers):
                socket.on_disconnect = gone.release
            await clock.advance(175)
            assert all(socket.connected for socket in (*clients, *servers))
            await clock.advance(50)
            for _ in range(4):
                await soon(gone.acquire())
            with pytest.raises(Disconnected, match="idle for 180 s"):
                await servers[0].recv()

    async def test_one_call_at_work_keeps_it_open(self) -> None:
        clock = ManualClock()
        async with pair(self.OPTIONS, clock=clock) as both:
            clients, servers = await both.links(2)
            await clients[0].send(text("slow"))
            await soon(servers[0].recv())
            await clock.advance(3600)
            await servers[0].send(text("late"))
            assert (await soon(clients[0].recv())).body == b"late"
            assert clients[1].connected

    async def test_one_open_stream_keeps_it_open(self) -> None:
        clock = ManualClock()
        async with pair(self.OPTIONS, clock=clock) as both:
            client, server = await both.link()
            stream = await both.dial()
            await stream.send(text("", Micro_Stream="1"))
            handler = await soon(both.sockets.get())
            await soon(handler.recv())
            await handler.send(text(""))
            await clock.advance(3600)
            assert client.connected
            assert server.connected
            await stream.aclose()
            await handler.aclose()
            await clock.advance(300)
            with pytest.raises(Disconnected):
                await soon(client.recv())

    async def test_each_call_on_any_channel_begins_the_time_anew(self) -> None:
        clock = ManualClock()
        async with pair(self.OPTIONS, clock=clock) as both:
            clients, servers = await both.links(2)
            async with echo(servers[1]):
                for _ in range(3):
                    await clock.advance(120)
                    await soon(asks(clients[1], text("ping")))
            assert clients[0].connected
