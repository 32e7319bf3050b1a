"""The in-memory transport: sockets between services of one event loop, with the bounds of real ones."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket as _socket
import weakref
from collections import deque
from collections.abc import Sequence
from contextvars import copy_context

from pymicro._internal.logs import log
from pymicro.errors import Closed, ConfigurationError, DialFailed, Disconnected, TooLarge
from pymicro.message import Message
from pymicro.plugins import Build, Limits, NoOptions
from pymicro.record import Node
from pymicro.transport._contract import Accept, Listener, Socket, Transport


class MemoryNetwork:
    """The addresses that memory transports share. Transports that were given one network reach each other."""

    def __init__(self) -> None:
        self._listeners: dict[str, MemoryListener] = {}
        self._ports = itertools.count(1)

    def claim(self, address: str, listener: MemoryListener) -> str:
        """Give `listener` the address, or a fresh one for `""` and for port 0; return it.

        Raises:
            ConfigurationError: somebody listens there already.
        """
        host, _, port = address.rpartition(":")
        if not address or port == "0":
            address = f"{host or 'memory'}:{next(self._ports)}"
        if address in self._listeners:
            raise ConfigurationError(f"memory address {address!r} is in use: choose another with --server_address")
        self._listeners[address] = listener
        return address

    def release(self, address: str) -> None:
        """Free an address."""
        self._listeners.pop(address, None)

    def find(self, address: str) -> MemoryListener | None:
        """Who listens at the address; None for nobody."""
        return self._listeners.get(address)


class MemorySocket(Socket):
    """One end of a pair of bounded queues."""

    def __init__(self, local: str, remote: str, limits: Limits) -> None:
        self.local = local
        self.remote = remote
        self._limits = limits
        self._peer: MemorySocket | None = None
        self._inbox: deque[tuple[Message, int]] = deque()
        self._inbox_size = 0
        self.connected = True
        self._closed = False
        self._lost = False
        self._receiver: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None

    async def send(self, message: Message) -> None:
        peer = self._check()
        size = message.size
        if len(message.body) > self._limits.message or size - len(message.body) > self._limits.headers:
            raise TooLarge(f"message of {size} bytes is over the limit of {self._limits.message}")
        if type(message.body) is not bytes:  # what may change is copied
            message = Message(message.headers, bytes(message.body))
        peer._inbox.append((message, size))
        peer._inbox_size += size
        _wake(peer._receiver)
        while peer._inbox_size > self._limits.buffer and self.connected:
            self._sender = asyncio.get_running_loop().create_future()
            try:
                await self._sender
            finally:
                self._sender = None
        self._check()

    def _check(self) -> MemorySocket:
        if self._closed:
            raise Closed("the socket was closed")
        if self._lost or self._peer is None:
            raise Disconnected("the peer closed the connection", self.remote)
        return self._peer

    async def recv(self) -> Message:
        while not self._inbox:
            self._check()
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        if self._closed:
            raise Closed("the socket was closed")
        message, size = self._inbox.popleft()
        self._inbox_size -= size
        if self._peer is not None:
            _wake(self._peer._sender)
        return message

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.connected = False
        self._inbox.clear()
        self._wake_all()
        if self._peer is not None and not self._peer._lost:
            self._peer._lose()

    def _lose(self) -> None:
        self._lost = True
        self.connected = False
        self._wake_all()
        if self._on_disconnect is not None and not self._closed:
            asyncio.get_running_loop().call_soon(self._notify)

    def _wake_all(self) -> None:
        _wake(self._receiver)
        _wake(self._sender)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class MemoryListener(Listener):
    """An address in a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, address: str, accept: Accept, build: Build) -> None:
        self._network = network
        self._accept = accept
        self._logger = build.logger
        self._limits = build.limits
        self._context = copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._address = network.claim(address, self)
        self.addresses: Sequence[str] = (self._address,)

    def connect(self, remote: str) -> MemorySocket:
        """A new pair of sockets; one is accepted here, the other returned."""
        ours = MemorySocket(self._address, remote, self._limits)
        theirs = MemorySocket(remote, self._address, self._limits)
        ours._peer, theirs._peer = theirs, ours
        # this runs in the caller's task, whose context variables are none of the handler's business
        context = self._context.copy()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._serve(ours), name=f"memory accept {remote}", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return theirs

    async def _serve(self, socket: MemorySocket) -> None:
        try:
            await self._accept(socket)
        except Exception as error:
            log(self._logger, logging.ERROR, "connection failed", remote=socket.remote, error=repr(error))
        finally:
            await socket.aclose()

    async def stop_accepting(self) -> None:
        if self._network.find(self._address) is self:
            self._network.release(self._address)

    async def aclose(self) -> None:
        await self.stop_accepting()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class MemoryTransport(Transport):
    """Sockets within one event loop, with the limits and the back-pressure of a network.

    Args:
        options: none.
        build: limits and logger.
        network: the addresses to share with other transports; None for a network of its own.
    """

    name = "memory"

    def __init__(
        self, options: NoOptions | None = None, build: Build | None = None, *, network: MemoryNetwork | None = None
    ) -> None:
        self._build = build or Build()
        self._network = network or MemoryNetwork()
        self._listeners: set[MemoryListener] = set()
        self._sockets: weakref.WeakSet[MemorySocket] = weakref.WeakSet()
        self._numbers = itertools.count(1)

    async def dial(self, node: Node, *, timeout: float) -> Socket:
        self.require_open()
        listener = self._network.find(node.address)
        if listener is None:
            raise DialFailed("nobody listens at this memory address", node.address)
        socket = listener.connect(f"memory-client:{next(self._numbers)}")
        self._sockets.add(socket)
        return socket

    async def listen(self, address: str, accept: Accept, *, sock: _socket.socket | None = None) -> Listener:
        self.require_open()
        if sock is not None:
            raise ConfigurationError("the memory transport has no sockets to be handed down")
        listener = MemoryListener(self._network, address, accept, self._build)
        self._listeners.add(listener)
        return listener

    async def _close(self) -> None:
        for listener in self._listeners:
            await listener.aclose()
        for socket in list(self._sockets):
            await socket.aclose()
