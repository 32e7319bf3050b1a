"""Cases about peers that cannot be reached, hang, are killed, or send what is no message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from pymicro.errors import ConnectionFailed, DialFailed, Disconnected, Error, PymicroError
from pymicro.transport import Socket, Transport
from pymicro_testing._guard import since
from pymicro_testing._transport_base import Feed, TransportBase, filled, text

_GARBAGE = (
    b"\0" * 64,
    b"\x16\x03\x01\x02\x00\x01",
    b"hello\r\n\r\n",
    b"HTTP/1.1 banana\r\n\r\n",
    bytes(range(256)) * 64,
)


class TransportFaults(TransportBase):
    """See `TransportConformance`."""

    @since("0.1")
    async def test_dialling_nobody_fails(self) -> None:
        async with self.opened() as transport:
            address = self.unreachable()
            with pytest.raises(DialFailed) as failure:
                await self.within(transport.dial(self.node(address), timeout=self.patience))
            assert failure.value.executed == "no"

    @since("0.1")
    async def test_dialling_nonsense_fails(self) -> None:
        async with self.opened() as transport:
            for address in ("", "::::", "no such host.invalid:1", "127.0.0.1:port", "127.0.0.1:99999"):
                await self.refused(transport.dial(self.node(address), timeout=self.patience), DialFailed)

    @since("0.1")
    async def test_a_cancelled_dial_leaves_nothing_behind(self) -> None:
        async with self.listening() as (near, _, listener, _):
            for turns in range(20):
                dialling = asyncio.create_task(self.dial(near, listener.addresses[0]))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if not await self.cancelled(dialling):
                    await dialling.result().aclose()

    @since("0.1")
    async def test_a_peer_that_hangs_is_given_up(self) -> None:
        self.needs_tcp()
        async with self.opened() as transport, _answering(None) as address:
            started = time.monotonic()
            try:
                socket = await transport.dial(self.node(address), timeout=0.2)
            except DialFailed:
                assert time.monotonic() - started < self.patience
                return
            await self.within(socket.send(text("anybody?")))
            receiving = asyncio.create_task(socket.recv())
            await self.stays_waiting(receiving, "the peer hangs")
            assert await self.cancelled(receiving)
            await self.within(socket.aclose())

    @since("0.1")
    async def test_a_silent_client_keeps_nobody_waiting(self) -> None:
        self.needs_tcp()
        async with self.echoing() as (transport, address):
            _, writer = await asyncio.open_connection(*_split(address))
            try:
                await self.hears_itself(transport, address)
            finally:
                writer.close()
                await writer.wait_closed()

    @since("0.1")
    async def test_a_peer_killed_in_the_middle_of_a_message_is_disconnected(self) -> None:
        for towards in ("server", "client"):
            for reset in (True, False):
                await self.killed(towards, reset)

    @since("0.1")
    async def test_a_network_that_ends_is_told_to_both_sides(self) -> None:
        async with self.proxied() as (link, proxy):
            waiting = [asyncio.create_task(socket.recv()) for socket in (link.client, link.server)]
            await self.stays_waiting(waiting[0], "nothing was sent")
            await proxy.stop()
            for receiving in waiting:
                await self.refused(receiving, Disconnected)
            await self.refused(self.dial(link.near, proxy.address), DialFailed)
            await proxy.start()
            async with aclosing(await self.dial(link.near, proxy.address)) as client:
                await self.greet(client, link.door)

    @since("0.1")
    async def test_a_network_that_stalls_loses_nothing(self) -> None:
        async with self.proxied() as (link, proxy):
            await proxy.pause()
            await self.within(link.client.send(text("late")))
            receiving = asyncio.create_task(link.server.recv())
            await self.stays_waiting(receiving, "the network stalls")
            await proxy.start()
            assert (await self.within(receiving)).body == b"late"
            await self.echoes(link)

    @since("0.1")
    async def test_closing_while_the_network_stalls_is_bounded(self) -> None:
        async with self.proxied() as (link, proxy):
            await proxy.pause()
            feed = Feed(link.client, 10_000, size=16 * 1024)
            await self.stuck(feed)
            closing = asyncio.create_task(link.client.aclose())
            await asyncio.wait({closing}, timeout=self.patience)
            ended = closing.done()
            await proxy.stop()  # so that what waits for the network can end
            await self.within(closing)
            assert ended, f"closing took longer than {self.patience} seconds"
            await asyncio.wait({feed.task}, timeout=self.patience)
            assert isinstance(feed.task.exception(), Exception)

    @since("0.1")
    async def test_bytes_that_trickle_make_whole_messages(self) -> None:
        async with self.proxied() as (link, proxy):
            for chunk in (1, 2, 3, 7):
                proxy.chunk = chunk
                await self.echoes(link)
                assert (await self.sends(link.server, link.client, filled(500))).body == b"x" * 500
                assert (await self.sends(link.client, link.server, text(""))).body == b""

    @since("0.1")
    async def test_garbage_from_a_client_harms_nobody_else(self) -> None:
        self.needs_tcp()
        async with self.echoing() as (transport, address), aclosing(await self.dial(transport, address)) as sibling:
            for garbage in _GARBAGE:
                _, writer = await asyncio.open_connection(*_split(address))
                writer.write(garbage)
                await self.hears_itself(transport, address)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
            await self.within(sibling.send(text("sound")))
            assert (await self.within(sibling.recv())).body == b"sound"

    @since("0.1")
    async def test_garbage_from_a_server_is_an_error(self) -> None:
        self.needs_tcp()
        for garbage in _GARBAGE:
            async with self.opened() as transport, _answering(garbage) as address:
                try:
                    socket = await self.dial(transport, address)
                except DialFailed:
                    continue
                async with aclosing(socket):
                    await self.refused(_exchange(socket), ConnectionFailed, Error)

    # Helpers

    async def killed(self, towards: str, reset: bool) -> None:
        """Cut a connection while a message is on its way to one side."""
        async with self.proxied() as (link, proxy):
            sender, receiver = (link.client, link.server) if towards == "server" else (link.server, link.client)
            told = asyncio.Semaphore(0)
            receiver.on_disconnect = told.release
            proxy.cut(after=self.limits.message // 2, reset=reset)
            feed = Feed(sender, 1000, size=self.limits.message)
            assert await self.until_disconnected(receiver) == [], "half a message was delivered"
            await self.refused(feed.task, Disconnected)
            await self.within(told.acquire())
            assert told.locked(), "on_disconnect was called twice"

    @asynccontextmanager
    async def echoing(self) -> AsyncIterator[tuple[Transport, str]]:
        """An open transport, and an address at which another one sends back what it receives."""
        async with self.pair() as (near, far), aclosing(await far.listen(self.listen_address, _echo)) as listener:
            yield near, listener.addresses[0]

    async def hears_itself(self, transport: Transport, address: str) -> None:
        """Fail unless a new connection to the address works."""
        async with aclosing(await self.dial(transport, address)) as client:
            await self.within(client.send(text("ping")))
            assert (await self.within(client.recv())).body == b"ping"


async def _echo(socket: Socket) -> None:
    with suppress(PymicroError):
        while True:
            await socket.send(await socket.recv())


async def _exchange(socket: Socket) -> None:
    await socket.send(text("ping"))
    await socket.recv()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@asynccontextmanager
async def _answering(answer: bytes | None) -> AsyncIterator[str]:
    """The address of a server that answers each connection and closes it, or for None never says anything."""
    writers: list[asyncio.StreamWriter] = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if answer is not None:
            writer.write(answer)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
