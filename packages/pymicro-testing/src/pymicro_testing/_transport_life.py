"""Cases about connections that come and go, listeners, and the life of a transport."""

from __future__ import annotations

import asyncio
import socket as _socket
from contextlib import aclosing

import pytest

from pymicro.errors import Closed, ConfigurationError, DialFailed, Disconnected, Unavailable
from pymicro.transport import Socket, Transport
from pymicro_testing._guard import since
from pymicro_testing._transport_base import Door, Link, TransportBase, filled, text


class TransportLife(TransportBase):
    """See `TransportConformance`."""

    # The end of a connection

    @since("0.1")
    async def test_the_peer_that_closes_is_noticed(self) -> None:
        for closer in ("client", "server"):
            async with self.link() as link:
                staying, leaving = (link.server, link.client) if closer == "client" else (link.client, link.server)
                receiving = asyncio.create_task(staying.recv())
                await self.stays_waiting(receiving, "nothing was sent")
                await leaving.aclose()
                await self.refused(receiving, Disconnected)
                await self.refused(staying.recv(), Disconnected)
                await self.refused(_send_for_ever(staying), Disconnected)
                assert not staying.connected

    @since("0.1")
    async def test_what_was_sent_before_closing_arrives(self) -> None:
        for closer in ("client", "server"):
            async with self.link() as link:
                staying, leaving = (link.server, link.client) if closer == "client" else (link.client, link.server)
                for _ in range(3):
                    await self.within(leaving.send(filled(16 * 1024)))
                await self.within(leaving.aclose())
                assert [len(body) for body in await self.until_disconnected(staying)] == [16 * 1024] * 3

    @since("0.1")
    async def test_a_disconnect_is_told_once_though_nobody_receives(self) -> None:
        for closer in ("client", "server"):
            async with self.link() as link:
                staying, leaving = (link.server, link.client) if closer == "client" else (link.client, link.server)
                told = asyncio.Semaphore(0)
                staying.on_disconnect = told.release
                leaving_told = asyncio.Semaphore(0)
                leaving.on_disconnect = leaving_told.release
                await leaving.aclose()
                await self.within(told.acquire())
                await self.refused(staying.recv(), Disconnected)
                await staying.aclose()
                await asyncio.sleep(self.quiet)
                assert told.locked(), "on_disconnect was called twice"
                assert leaving_told.locked(), "on_disconnect was called for this side's own aclose"

    @since("0.1")
    async def test_a_disconnect_is_told_though_it_happened_before(self) -> None:
        async with self.link() as link:
            await link.client.aclose()
            await self.refused(link.server.recv(), Disconnected)
            told = asyncio.Semaphore(0)
            link.server.on_disconnect = told.release
            await self.within(told.acquire())

    @since("0.1")
    async def test_a_cleared_callback_is_not_called(self) -> None:
        async with self.link() as link:
            told = asyncio.Semaphore(0)
            link.server.on_disconnect = told.release
            link.server.on_disconnect = None
            await link.client.aclose()
            await self.refused(link.server.recv(), Disconnected)
            assert link.server.on_disconnect is None
            assert told.locked()

    @since("0.1")
    async def test_closing_a_socket_ends_its_own_recv(self) -> None:
        for closer in ("client", "server"):
            async with self.link() as link:
                socket = link.client if closer == "client" else link.server
                receiving = asyncio.create_task(socket.recv())
                await self.stays_waiting(receiving, "nothing was sent")
                await self.within(socket.aclose())
                await self.refused(receiving, Closed)

    @since("0.1")
    async def test_closing_a_socket_ends_its_own_send(self) -> None:
        async with self.link() as link:
            sending = asyncio.create_task(_send_for_ever(link.client))
            await self.stays_waiting(sending, "nobody reads")
            closing = asyncio.create_task(link.client.aclose())
            await self.refused(sending, Closed)
            await link.server.aclose()
            await self.within(closing)

    @since("0.1")
    async def test_a_socket_closes_twice(self) -> None:
        async with self.link() as link:
            for socket in (link.client, link.server):
                await self.within(asyncio.gather(socket.aclose(), socket.aclose()))
                await self.within(socket.aclose())
                assert not socket.connected

    @since("0.1")
    async def test_a_closed_socket_is_of_no_use(self) -> None:
        async with self.link() as link:
            for socket in (link.client, link.server):
                await socket.aclose()
                await self.refused(socket.send(text("late")), Closed)
                await self.refused(socket.recv(), Closed)

    # Listeners

    @since("0.1")
    async def test_a_handler_that_returns_closes_its_socket(self) -> None:
        async def answer(socket: Socket) -> None:
            await socket.send(await socket.recv())

        async with (
            self.pair() as (near, far),
            aclosing(await far.listen(self.listen_address, answer)) as listener,
            aclosing(await self.dial(near, listener.addresses[0])) as client,
        ):
            await self.within(client.send(text("ping")))
            assert await self.until_disconnected(client) == [b"ping"]

    @since("0.1")
    async def test_a_handler_that_raises_closes_its_socket_only(self) -> None:
        door = Door()

        async def accept(socket: Socket) -> None:
            if (await socket.recv()).body == b"raise":
                raise ValueError("a handler's fault")
            await door(socket)

        async with self.pair() as (near, far), aclosing(await far.listen(self.listen_address, accept)) as listener:
            address = listener.addresses[0]
            async with (
                aclosing(await self.dial(near, address)) as sound,
                aclosing(await self.dial(near, address)) as bad,
            ):
                await self.within(sound.send(text("fine")))
                server = await self.within(door.sockets.get())
                await self.within(bad.send(text("raise")))
                await self.until_disconnected(bad)
                assert (await self.sends(sound, server, text("ping"))).body == b"ping"

    @since("0.1")
    async def test_stopping_to_accept_leaves_connections_alone(self) -> None:
        async with self.link() as link:
            await self.within(link.listener.stop_accepting())
            await self.within(link.listener.stop_accepting())
            await self._nobody_answers(link)
            await self.echoes(link)

    async def _nobody_answers(self, link: Link) -> None:
        """A socket that shares a connection may be had; it must say that nothing was executed."""
        try:
            socket = await self.dial(link.near, link.listener.addresses[0])
        except DialFailed:
            return
        async with aclosing(socket):
            await self.within(socket.send(text("hello")))
            with pytest.raises(Unavailable) as failure:
                await self.within(socket.recv())
            assert failure.value.executed == "no"

    @since("0.1")
    async def test_closing_a_listener_ends_its_connections(self) -> None:
        async with self.link() as link:
            await self.within(asyncio.gather(link.listener.aclose(), link.listener.aclose()))
            await self.within(link.listener.aclose())
            assert link.door.ended == 1, "the handler was not cancelled and awaited"
            await self.refused(link.client.recv(), Disconnected)
            await self.refused(link.server.recv(), Closed)
            await self.refused(self.dial(link.near, link.listener.addresses[0]), DialFailed)

    @since("0.1")
    async def test_a_closed_listeners_address_is_free_again(self) -> None:
        async with self.link() as link:
            address = link.listener.addresses[0]
            await link.listener.aclose()
            door = Door()
            async with aclosing(await link.far.listen(address, door)) as listener:
                assert listener.addresses[0] == address
                async with aclosing(await self.dial(link.near, address)) as client:
                    await self.greet(client, door)

    @since("0.1")
    async def test_an_address_in_use_is_refused(self) -> None:
        async with self.listening() as (near, _, listener, _):
            await self.refused(near.listen(listener.addresses[0], Door()), ConfigurationError)

    @since("0.1")
    async def test_each_listener_has_an_address_of_its_own(self) -> None:
        async with self.listening() as (near, far, first, _):
            door = Door()
            async with aclosing(await far.listen(self.listen_address, door)) as second:
                assert not set(first.addresses) & set(second.addresses)
                async with aclosing(await self.dial(near, second.addresses[0])) as client:
                    await self.greet(client, door)

    @since("0.1")
    async def test_malformed_listen_addresses_are_refused(self) -> None:
        self.needs_tcp()
        async with self.opened() as transport:
            for address in ("127.0.0.1:port", "127.0.0.1:70000", "203.0.113.1:0"):
                await self.refused(transport.listen(address, Door()), ConfigurationError)

    @since("0.1")
    async def test_a_range_of_ports_gives_the_first_free_one(self) -> None:
        self.needs_tcp()
        async with self.listening() as (_, far, listener, _):
            taken = int(listener.addresses[0].rpartition(":")[2])
            door = Door()
            async with aclosing(await far.listen(f"127.0.0.1:{taken}-{min(taken + 20, 65535)}", door)) as other:
                assert taken < int(other.addresses[0].rpartition(":")[2]) <= taken + 20

    @since("0.1")
    async def test_a_bound_socket_can_be_handed_down(self) -> None:
        async with self.pair() as (near, far):
            with _socket.socket() as bound:
                bound.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{bound.getsockname()[1]}"
                door = Door()
                if not self.tcp:
                    await self.refused(far.listen("", door, sock=bound), ConfigurationError)
                    return
                async with aclosing(await far.listen("", door, sock=bound)) as listener:
                    assert listener.addresses[0] == address
                    async with aclosing(await self.dial(near, address)) as client:
                        await self.greet(client, door)

    # Life cycle

    @since("0.1")
    async def test_before_opening_everything_is_refused(self) -> None:
        await self.refuses_use(self.make(self.build()))

    @since("0.1")
    async def test_after_closing_everything_is_refused(self) -> None:
        async with self.opened() as transport:
            await transport.aclose()
            await transport.aclose()
            await self.refuses_use(transport)

    @since("0.1")
    async def test_closing_before_opening_is_harmless(self) -> None:
        transport = self.make(self.build())
        await transport.aclose()
        await transport.aclose()
        await self.refused(transport.__aenter__(), Closed)

    @since("0.1")
    async def test_closing_the_dialling_transport_closes_its_sockets(self) -> None:
        async with self.link() as link:
            receiving = asyncio.create_task(link.client.recv())
            await self.stays_waiting(receiving, "nothing was sent")
            await self.within(link.near.aclose())
            await self.refused(receiving, Closed)
            await self.refused(link.server.recv(), Disconnected)

    @since("0.1")
    async def test_closing_the_listening_transport_closes_its_listeners(self) -> None:
        async with self.link() as link:
            await self.within(link.far.aclose())
            assert link.door.ended == 1, "the handler was not cancelled and awaited"
            await self.refused(link.client.recv(), Disconnected)
            await self.refused(self.dial(link.near, link.listener.addresses[0]), DialFailed)

    @since("0.1")
    async def test_closing_one_instance_leaves_the_other_alone(self) -> None:
        async with self.link() as link:
            async with (
                self.make(self.build()) as third,
                aclosing(await self.dial(third, link.listener.addresses[0])) as client,
            ):
                await self.greet(client, link.door)
            await self.echoes(link)
            await self.within(self.make(self.build()).aclose())
            await self.echoes(link)

    async def refuses_use(self, transport: Transport) -> None:
        """Every method of a transport that is not open raises `Closed`."""
        await self.refused(transport.dial(self.node(self.unreachable()), timeout=self.patience), Closed)
        await self.refused(transport.listen(self.listen_address, Door()), Closed)


async def _send_for_ever(socket: Socket) -> None:
    while True:
        await socket.send(filled(16 * 1024))
