"""Sockets to nodes, kept between calls. Follows go-micro `internal/util/pool/default.go` in spirit: newest first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from pymicro.clock import Clock
from pymicro.record import Node
from pymicro.transport import Socket, Transport


class Connection:
    """A pooled socket.

    Attributes:
        socket: open; carries one call at a time.
        address: of the node.
        expires: when it is too old to be used again, on the monotonic clock.
        echoes: whether the peer repeats a request's headers in its reply, as go-micro's servers do; None: not known.
    """

    __slots__ = ("address", "echoes", "expires", "socket")

    def __init__(self, socket: Socket, address: str, expires: float) -> None:
        self.socket = socket
        self.address = address
        self.expires = expires
        self.echoes: bool | None = None


class Pool:
    """Idle connections by address. Nothing limits how many are in use: each call in flight has its own.

    Args:
        transport: dials.
        clock: ages connections.
        size: idle connections kept for one address.
        ttl: seconds after which a connection is not used again; Go Micro's servers count on 60 or less.
        dial_timeout: seconds.
    """

    def __init__(self, transport: Transport, clock: Clock, *, size: int, ttl: float, dial_timeout: float) -> None:
        self._transport = transport
        self._monotonic: Callable[[], float] = clock.monotonic
        self._size = size
        self._ttl = ttl
        self._dial_timeout = dial_timeout
        self._idle: dict[str, list[Connection]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def idle(self, node: Node) -> Connection | None:
        """A connected socket to `node` that nobody uses; None if there is none, then `dial`."""
        idle = self._idle.get(node.address)
        while idle:
            connection = idle.pop()
            if connection.socket.connected and connection.expires > self._monotonic():
                return connection
            self.discard(connection)
        return None

    async def dial(self, node: Node) -> Connection:
        """A new socket to `node`.

        Raises:
            DialFailed: there is none to be had.
        """
        socket = await self._transport.dial(node, timeout=self._dial_timeout)
        connection = Connection(socket, node.address, self._monotonic() + self._ttl)
        socket.on_disconnect = partial(self._lost, connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Keep the connection for the next call, or close it when there are enough."""
        if self._closed or not connection.socket.connected:
            self.discard(connection)
            return
        idle = self._idle.get(connection.address)
        if idle is None:
            idle = self._idle[connection.address] = []
        idle.append(connection)
        if len(idle) > self._size or idle[0].expires <= self._monotonic():
            self.discard(idle.pop(0))

    def _lost(self, connection: Connection) -> None:
        idle = self._idle.get(connection.address, [])
        if connection in idle:
            idle.remove(connection)
            self.discard(connection)
            if not idle:
                del self._idle[connection.address]

    def discard(self, connection: Connection) -> None:
        """Close the connection in the background."""
        task = asyncio.get_running_loop().create_task(connection.socket.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def drop(self, node: Node) -> None:
        """Close the idle connections to a node that left the registry."""
        for connection in self._idle.pop(node.address, []):
            self.discard(connection)

    async def aclose(self) -> None:
        """Close every idle connection and wait for those that are closing; those in use are closed on their return."""
        self._closed = True
        for connections in [*self._idle.values()]:
            for connection in connections:
                self.discard(connection)
        self._idle.clear()
        if self._closing:
            await asyncio.wait(self._closing)
