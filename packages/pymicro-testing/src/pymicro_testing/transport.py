"""What every transport must do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import msgspec

from pymicro.errors import Disconnected, Error, PymicroError, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.transport import Socket
from pymicro_testing._guard import since
from pymicro_testing._transport_base import Feed, filled, number, text
from pymicro_testing._transport_faults import TransportFaults
from pymicro_testing._transport_life import TransportLife

_BODIES: Final = (
    b"",
    b"\0",
    bytes(range(256)) * 16,
    "Grüße, 日本 ✓".encode(),
    b"\r\n\r\n",
    b"0\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"x" * 65_535,
    b"\xff" * 131_072,
)
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Micro-Endpoint": "Greeter.Hello",
    "Micro-Error": '{"id":"x","code":500,"detail":"Größe: 日本 \\u2713"}',
    "X-Empty": "",
    "X-Punctuation": "a=b; c, d: \"e\" 'f' \\ / ? # % + ~",
    "X-Inner-Spaces": "one  two   three",
    "X-Non-Ascii": "Grüße 日本 ✓ 🙂",
    "x-lower": "lower",
    "X_Under.Score": "kept",
    "X-Long": "v" * 4096,
}
_COUNT: Final = 1000
_PIECE: Final = 16 * 1024
_FLOOD: Final = 1280  # pieces: 20 MiB, more than two kernels buffer


class TransportConformance(TransportFaults, TransportLife):
    """The cases for transports.

    Define `make`; several transports made in one case must be able to reach each other. Attributes beyond those of
    `Conformance`:
        tcp: whether addresses are `host:port` over TCP. Cases with a faulty network need it.
        nobody: for other transports, an address at which nobody listens.
    The method `node` makes the node to dial at an address.

    The dialling side speaks first in every case. Headers may arrive with another spelling and with company.
    """

    # Messages

    @since("0.1")
    async def test_messages_pass_both_ways(self) -> None:
        async with self.link() as link:
            await self.echoes(link)
            await self.echoes(link)
            assert link.client.connected
            assert link.server.connected

    @since("0.1")
    async def test_any_body_arrives_as_it_is(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                for body in _BODIES:
                    arrived = await self.sends(sender, receiver, Message(Headers({"X-Size": str(len(body))}), body))
                    assert arrived.body == body
                    assert arrived.headers["X-Size"] == str(len(body))

    @since("0.1")
    async def test_headers_arrive_whatever_their_spelling(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                arrived = await self.sends(sender, receiver, Message(Headers(_HEADERS), b"{}"))
                for name, value in _HEADERS.items():
                    assert [arrived.headers.get(each) for each in (name, name.upper(), name.lower())] == [value] * 3

    @since("0.1")
    async def test_many_headers_arrive(self) -> None:
        async with self.link() as link:
            headers = {f"X-Header-{number}": str(number) for number in range(200)}
            arrived = await self.sends(link.client, link.server, Message(Headers(headers)))
            assert {name: arrived.headers.get(name) for name in headers} == headers

    @since("0.1")
    async def test_headers_of_one_message_are_not_those_of_the_next(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                await self.sends(sender, receiver, text("one", [("X-First", "1"), ("X-Both", "1")]))
                second = await self.sends(sender, receiver, text("two", [("X-Both", "2")]))
                assert second.headers.get("X-Both") == "2"
                assert "X-First" not in second.headers

    @since("0.1")
    async def test_a_header_cannot_smuggle_another(self) -> None:
        async with self.link() as link:
            for value in ("a\r\nX-Smuggled: yes", "a\nX-Smuggled: yes", "a\r\n\r\nbody"):
                try:
                    arrived = await self.sends(link.client, link.server, text("body", [("X-Value", value)]))
                except PymicroError:
                    continue
                assert "X-Smuggled" not in arrived.headers
                assert arrived.body == b"body"

    @since("0.1")
    async def test_a_thousand_messages_keep_their_order(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                feed = Feed(sender, _COUNT)
                assert await self.numbers(receiver, _COUNT) == list(range(_COUNT))
                await self.within(feed.task)

    @since("0.1")
    async def test_both_sides_may_send_at_once(self) -> None:
        async with self.link() as link:
            feeds = Feed(link.client, _COUNT), Feed(link.server, _COUNT)
            there, back = await asyncio.gather(self.numbers(link.server, _COUNT), self.numbers(link.client, _COUNT))
            assert there == back == list(range(_COUNT))
            for feed in feeds:
                await self.within(feed.task)

    @since("0.1")
    async def test_many_sockets_keep_their_messages_apart(self) -> None:
        async with self.listening() as (near, _, listener, door):
            clients = await asyncio.gather(*(self.dial(near, listener.addresses[0]) for _ in range(50)))
            try:
                for number, client in enumerate(clients):
                    await self.within(client.send(text(str(number))))
                for _ in clients:
                    server = await self.within(door.sockets.get())
                    await self.within(server.send(await self.within(server.recv())))
                answers = [(await self.within(client.recv())).body for client in clients]
                assert answers == [str(number).encode() for number in range(50)]
            finally:
                await asyncio.gather(*(client.aclose() for client in clients))

    # Limits

    @since("0.1")
    async def test_the_largest_message_passes(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                arrived = await self.sends(sender, receiver, filled(self.limits.message))
                assert len(arrived.body) == self.limits.message

    @since("0.1")
    async def test_a_message_over_the_limit_is_not_sent(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                await self.refused(sender.send(filled(self.limits.message + 1)), TooLarge)
                assert (await self.sends(sender, receiver, text("sound"))).body == b"sound"

    @since("0.1")
    async def test_headers_over_the_limit_are_not_sent(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                await self.refused(sender.send(text("", [("X-Large", "v" * self.limits.headers)])), TooLarge)
                assert (await self.sends(sender, receiver, text("sound"))).body == b"sound"

    @since("0.1")
    async def test_headers_near_the_limit_pass(self) -> None:
        async with self.link() as link:
            value = "v" * (self.limits.headers * 3 // 4)
            arrived = await self.sends(link.client, link.server, text("", [("X-Large", value)]))
            assert arrived.headers["X-Large"] == value

    @since("0.1")
    async def test_a_message_over_the_receivers_limit_is_answered(self) -> None:
        larger = msgspec.structs.replace(self.limits, message=2 * self.limits.message)
        async with self.link(limits=larger) as link:
            sending = asyncio.create_task(link.client.send(filled(larger.message)))
            try:
                await self.within(sending)
            except TooLarge:
                return  # the limits of the other side are known here
            except Disconnected:
                pass
            await self.refused(link.server.recv(), TooLarge)
            await self.within(link.server.send(text("too large")))
            await link.server.aclose()
            with suppress(Error, Disconnected):  # a reset may overtake the answer
                assert (await self.within(link.client.recv())).body == b"too large"

    # Back-pressure

    @since("0.1")
    async def test_a_peer_that_stopped_reading_makes_the_sender_wait(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                feed = Feed(sender, _FLOOD, size=_PIECE)
                await self.stuck(feed)
                assert feed.sent * _PIECE <= self.most_buffered, f"{feed.sent} messages of {_PIECE} bytes were buffered"
                assert await self.numbers(receiver, _FLOOD) == list(range(_FLOOD))
                await self.within(feed.task)

    @since("0.1")
    async def test_a_peer_that_stopped_reading_harms_no_sibling(self) -> None:
        async with self.link() as link:
            feed = Feed(link.client, _FLOOD, size=_PIECE)
            await self.stuck(feed)
            sibling = await self.dial(link.near, link.listener.addresses[0])
            try:
                peer = await self.greet(sibling, link.door)
                assert (await self.sends(peer, sibling, text("pong"))).body == b"pong"
            finally:
                await sibling.aclose()
                await self.cancelled(feed.task)
                await link.server.aclose()

    # Cancellation

    @since("0.1")
    async def test_a_cancelled_recv_loses_no_message(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                feed = Feed(sender, _COUNT)
                arrived: list[int] = []
                for attempt in range(_COUNT // 2):
                    receiving = asyncio.create_task(receiver.recv())
                    for _ in range(attempt % 5):
                        await asyncio.sleep(0)
                    if not await self.cancelled(receiving):
                        arrived.append(number(receiving.result()))
                arrived += await self.numbers(receiver, _COUNT - len(arrived))
                assert arrived == list(range(_COUNT))
                await self.within(feed.task)

    @since("0.1")
    async def test_a_cancelled_recv_leaves_the_socket_sound(self) -> None:
        async with self.link() as link:
            for socket in (link.client, link.server):
                receiving = asyncio.create_task(socket.recv())
                await self.stays_waiting(receiving, "nothing was sent")
                assert await self.cancelled(receiving)
            await self.echoes(link)

    @since("0.1")
    async def test_a_cancelled_send_tears_no_message(self) -> None:
        async with self.link() as link:
            for sender, receiver in ((link.client, link.server), (link.server, link.client)):
                feed = Feed(sender, _FLOOD, size=_PIECE)
                await self.stuck(feed)
                assert await self.cancelled(feed.task)
                goodbye = asyncio.create_task(_goodbye(sender))
                arrived = await self.until_goodbye(receiver)
                assert arrived == list(range(len(arrived)))
                await self.within(goodbye)
                if not receiver.connected:
                    return  # the cancelled send broke the socket, as it may; there is no way back to try

    @since("0.1")
    async def test_a_cancelled_send_harms_no_sibling(self) -> None:
        async with self.link() as link:
            sibling = await self.dial(link.near, link.listener.addresses[0])
            try:
                peer = await self.greet(sibling, link.door)
                feed = Feed(link.client, _FLOOD, size=_PIECE)
                await self.stuck(feed)
                assert await self.cancelled(feed.task)
                assert (await self.sends(peer, sibling, text("pong"))).body == b"pong"
                assert (await self.sends(sibling, peer, text("ping"))).body == b"ping"
            finally:
                await sibling.aclose()
                await link.server.aclose()

    # Helpers

    @property
    def most_buffered(self) -> int:
        """Bytes that may be on their way to a reader who stopped; TCP adds the buffers of the two kernels."""
        return 4 * self.limits.buffer + (16 * 1024 * 1024 if self.tcp else 0)

    async def until_goodbye(self, socket: Socket) -> list[int]:
        """The numbers that arrive before a message without one, or before the peer is gone."""
        arrived: list[int] = []
        while True:
            try:
                message = await self.within(socket.recv())
            except Disconnected:
                return arrived
            if message.body == b"goodbye":
                return arrived
            assert len(message.body) == _PIECE, "a message was torn"
            arrived.append(number(message))


async def _goodbye(socket: Socket) -> None:
    with suppress(Disconnected):
        await socket.send(text("goodbye"))
