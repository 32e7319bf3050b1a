"""What the cases for transports share."""

from __future__ import annotations

import asyncio
import socket as _socket
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import ClassVar

import msgspec
import pytest

from pymicro.errors import Disconnected
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro.record import Node
from pymicro.transport import Listener, Socket, Transport
from pymicro_testing._conformance import Conformance
from pymicro_testing.faults import FaultProxy
from pymicro_testing.leaks import no_leaks


class Door:
    """What a listener is given: it hands accepted sockets to the case and keeps them open."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[Socket] = asyncio.Queue()
        self.ended = 0

    async def __call__(self, socket: Socket) -> None:
        self.sockets.put_nowait(socket)
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1


class Feed:
    """A task that sends numbered messages.

    Attributes:
        sent: how many `send` has taken.
        task: it ends when all are sent.
    """

    def __init__(self, socket: Socket, count: int, *, size: int = 0) -> None:
        self.sent = 0
        self._socket = socket
        self.task = asyncio.create_task(self._run(count, b"x" * size))
        # A case that failed before it asked for the result shall not be followed by a complaint about that.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _run(self, count: int, body: bytes) -> None:
        for each in range(count):
            await self._socket.send(Message(Headers({"X-Number": str(each)}), body))
            self.sent += 1
            if each % 3 == 0:
                await asyncio.sleep(0)


class Link(msgspec.Struct, kw_only=True):
    """Two open transports, a listener, and one connection between them.

    Attributes:
        near, far: the transport that dialled and the one that listens.
        listener, door: the open door of `far`.
        client, server: the two ends of the connection. The dialling end spoke first and was heard.
    """

    near: Transport
    far: Transport
    listener: Listener
    door: Door
    client: Socket
    server: Socket


class TransportBase(Conformance[Transport]):
    """See `TransportConformance`."""

    tcp: ClassVar[bool] = False
    nobody: ClassVar[str] = "nobody:1"

    @property
    def listen_address(self) -> str:
        """Where cases listen: the transport chooses the port."""
        return "127.0.0.1:0" if self.tcp else ""

    def node(self, address: str) -> Node:
        """The node to dial at an address."""
        return Node("conformance-1", address, {"protocol": "mucp"})

    def unreachable(self) -> str:
        """An address at which nobody listens."""
        if not self.tcp:
            return self.nobody
        with _socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{free.getsockname()[1]}"

    def needs_tcp(self) -> None:
        """Skip the case for transports whose addresses are no TCP ports."""
        if not self.tcp:
            pytest.skip("tcp is not declared")

    @asynccontextmanager
    async def listening(
        self, *, limits: Limits | None = None
    ) -> AsyncIterator[tuple[Transport, Transport, Listener, Door]]:
        """Two open transports; the second listens. `limits` are those of the first, None for the same."""
        near_build = self.build(limits=limits or self.limits)
        async with no_leaks(grace=self.patience), self.make(near_build) as near, self.make(self.build()) as far:
            door = Door()
            async with aclosing(await far.listen(self.listen_address, door)) as listener:
                yield near, far, listener, door

    @asynccontextmanager
    async def link(self, *, limits: Limits | None = None) -> AsyncIterator[Link]:
        """A connection between two open transports; nothing may be left when it was closed."""
        async with (
            self.listening(limits=limits) as (near, far, listener, door),
            aclosing(await self.dial(near, listener.addresses[0])) as client,
        ):
            server = await self.greet(client, door)
            yield Link(near=near, far=far, listener=listener, door=door, client=client, server=server)

    @asynccontextmanager
    async def proxied(self) -> AsyncIterator[tuple[Link, FaultProxy]]:
        """A connection that passes through a proxy, which was told nothing yet."""
        self.needs_tcp()
        async with (
            self.listening() as (near, far, listener, door),
            FaultProxy(listener.addresses[0]) as proxy,
            aclosing(await self.dial(near, proxy.address)) as client,
        ):
            server = await self.greet(client, door)
            yield Link(near=near, far=far, listener=listener, door=door, client=client, server=server), proxy

    async def dial(self, transport: Transport, address: str) -> Socket:
        """A socket to an address."""
        return await self.within(transport.dial(self.node(address), timeout=self.patience))

    async def greet(self, client: Socket, door: Door) -> Socket:
        """Send and receive the first message; the accepted socket."""
        await self.within(client.send(text("hello")))
        server = await self.within(door.sockets.get())
        assert (await self.within(server.recv())).body == b"hello"
        return server

    async def sends(self, sender: Socket, receiver: Socket, message: Message) -> Message:
        """Send in one task, receive in another; what arrived."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.within(sender.send(message)))
                received = tasks.create_task(self.within(receiver.recv()))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return received.result()

    async def echoes(self, link: Link) -> None:
        """Fail unless messages pass both ways."""
        assert (await self.sends(link.client, link.server, text("ping"))).body == b"ping"
        assert (await self.sends(link.server, link.client, text("pong"))).body == b"pong"

    async def numbers(self, socket: Socket, count: int) -> list[int]:
        """Receive `count` messages of a `Feed`."""
        return [number(await self.within(socket.recv())) for _ in range(count)]

    async def stuck(self, feed: Feed) -> None:
        """Wait until a feed makes no progress because nobody reads."""
        before = -1
        while feed.sent != before:
            before = feed.sent
            await asyncio.wait({feed.task}, timeout=self.quiet)
        assert not feed.task.done(), f"the sender never waited for the reader: {feed.task!r}"

    async def until_disconnected(self, socket: Socket) -> list[bytes]:
        """Receive until the peer is gone; the bodies that came before."""
        bodies: list[bytes] = []
        while True:
            try:
                bodies.append((await self.within(socket.recv())).body)
            except Disconnected:
                return bodies


def text(body: str, headers: Sequence[tuple[str, str]] = ()) -> Message:
    """A message with a text as its body."""
    return Message(Headers([("Content-Type", "text/plain"), *headers]), body.encode())


def filled(size: int, fill: bytes = b"x") -> Message:
    """A message with a body of `size` bytes."""
    return Message(Headers({"Content-Type": "application/octet-stream"}), fill * size)


def number(message: Message) -> int:
    """Which message of a `Feed` it is."""
    return int(message.headers["X-Number"])
