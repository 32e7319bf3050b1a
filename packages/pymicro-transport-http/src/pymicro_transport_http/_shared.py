"""The dialling side of channels: one connection to each process of a node, which all sockets to the node share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pymicro.clock import Clock
from pymicro.errors import Closed
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro_transport_http._channel import Channel
from pymicro_transport_http._channels import CLOSE_TIMEOUT, Channels
from pymicro_transport_http._protocol import CHANNELS, PROCESS, WINDOW, window_of
from pymicro_transport_http._socket import address_of, as_transport, keep_alive

#: Bytes that the answer to an upgrade may have.
_MAX_ANSWER: Final = 8 * 1024

#: Seconds for which a node that offered channels and did not take them up is called without, and for which processes
#: of a node that could not be reached are not looked for.
_WITHOUT: Final = 60.0

#: Processes at one address that a client connects to, and how often it looks for those that it missed.
_MAX_PROCESSES: Final = 64
_ROUNDS: Final = 4

_Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[Any]]


class _Handshake(asyncio.Protocol):
    """Asks the peer for channels: RFC 9110, section 7.8.

    Attributes:
        answer: the connection; None when the peer wants to speak HTTP; an `OSError` when it was lost.
    """

    def __init__(self, address: str, limits: Limits, made: Callable[[asyncio.Transport, int, str], Channels]) -> None:
        self.answer: asyncio.Future[Channels | None] = asyncio.get_running_loop().create_future()
        self._address = address
        self._limits = limits
        self._made = made
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = as_transport(transport)
        self._transport.set_write_buffer_limits(high=self._limits.buffer)
        keep_alive(transport.get_extra_info("socket"))
        self._transport.write(
            f"GET / HTTP/1.1\r\nHost: {self._address}\r\nConnection: Upgrade\r\nUpgrade: {CHANNELS}\r\n"
            f"{WINDOW}: {self._limits.buffer}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            return
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found and len(head) <= _MAX_ANSWER:
            return
        accepted = _accepted(head) if found else None
        if accepted is None:
            self.answer.set_result(None)
            self._transport.close()
            return
        channels = self._made(self._transport, *accepted)
        self.answer.set_result(channels)
        if rest:
            channels.data_received(rest)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError("the peer closed it during the handshake"))
            self.answer.exception()  # whoever dials may be gone


def _accepted(head: bytes) -> tuple[int, str] | None:
    """The peer's window and which of the processes at its address it is; None when it did not switch to channels."""
    status, *lines = head.decode("latin-1").split("\r\n")
    if not status.startswith("HTTP/1.1 101 "):
        return None
    fields = (line.partition(":") for line in lines)
    headers = Headers([(name, value.strip()) for name, _, value in fields])
    window = window_of(headers)
    if window is None or headers.get("upgrade") != CHANNELS:
        return None
    return window, headers.get(PROCESS, "")


class _Node:
    """What is known of one address.

    Attributes:
        connections: those that stand.
        search: the task that dials, while it does.
        without_until: until then the node is called without channels, which it did not take up.
        enough_until: until then no connections to further processes are looked for.
    """

    def __init__(self) -> None:
        self.connections: list[Channels] = []
        self.search: asyncio.Task[None] | None = None
        self.without_until = 0.0
        self.enough_until = 0.0

    @property
    def with_room(self) -> list[Channels]:
        """The connections on which a channel may be opened."""
        return [channels for channels in self.connections if channels.has_room]


class SharedConnections:
    """The connections of one transport, by address: one to each process that serves there.

    Which of several processes accepts a connection is the kernel's choice, so more are dialled than are kept; each
    says in its answer whom it reached.

    Args:
        limits: of messages, headers and windows.
        clock: tells when a node that declined is asked again.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._monotonic = clock.monotonic
        self._nodes: dict[str, _Node] = {}
        self._live: dict[Channels, asyncio.Future[None]] = {}

    async def open_channel(self, address: str, connect: _Connect, timeout: float, processes: int) -> Channel | None:
        """A channel to the node; None when it does not speak channels after all.

        All who ask meanwhile wait for one search; it goes on when one of them is cancelled.

        Args:
            address: the node's.
            connect: dials it.
            timeout: seconds for the search.
            processes: how many serve at the address.

        Raises:
            OSError: no connection came about.
            TimeoutError: not within `timeout` seconds of who asked first.
        """
        node = self._nodes.get(address)
        if node is None:
            self._forget_old()
            node = self._nodes[address] = _Node()
        while True:
            found = node.with_room
            if len(found) >= processes or (found and self._monotonic() < node.enough_until):
                return min(found, key=len).open_channel()
            if not found and self._monotonic() < node.without_until:
                return None
            await self._searched(node, address, connect, timeout, min(processes, _MAX_PROCESSES))

    def _forget_old(self) -> None:
        now = self._monotonic()
        for address, node in [*self._nodes.items()]:
            if not node.connections and node.search is None and node.without_until <= now:
                del self._nodes[address]

    async def _searched(self, node: _Node, address: str, connect: _Connect, timeout: float, processes: int) -> None:
        task = node.search
        if task is None:
            work = self._search(node, address, connect, timeout, processes)
            task = node.search = asyncio.create_task(work, name=f"http dial {address}")
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller is not None and caller.cancelling()):
                raise Closed("the transport was closed") from None
            raise

    async def _search(self, node: _Node, address: str, connect: _Connect, timeout: float, processes: int) -> None:
        try:
            async with asyncio.timeout(timeout):
                for _ in range(_ROUNDS):
                    missing = processes - len(node.with_room)
                    if missing <= 0:
                        return
                    await self._dial(node, address, connect, 1 if processes == 1 else 2 * missing)
                    if not node.with_room:
                        return
            node.enough_until = self._monotonic() + _WITHOUT
        finally:
            node.search = None

    async def _dial(self, node: _Node, address: str, connect: _Connect, count: int) -> None:
        """Dial a number of connections and keep those to processes that are not connected yet."""
        dialled = await asyncio.gather(
            *(self._dial_one(address, connect) for _ in range(count)), return_exceptions=True
        )
        for channels in dialled:
            if isinstance(channels, Channels):
                if channels.has_room and channels.process not in {each.process for each in node.with_room}:
                    node.connections.append(channels)
                else:
                    channels.close()
        if node.with_room:
            return
        for failure in dialled:
            if isinstance(failure, BaseException):
                raise failure
        if None in dialled:  # otherwise it took channels up and has no room for them
            node.without_until = self._monotonic() + _WITHOUT

    async def _dial_one(self, address: str, connect: _Connect) -> Channels | None:
        handshake: _Handshake | None = None

        def protocol() -> _Handshake:
            nonlocal handshake
            handshake = _Handshake(address, self._limits, self._made)
            return handshake

        transport, _ = await connect(protocol)
        assert handshake is not None
        try:
            return await handshake.answer
        except BaseException:
            transport.abort()
            raise

    def _made(self, transport: asyncio.Transport, window: int, process: str) -> Channels:
        lost = asyncio.get_running_loop().create_future()

        def on_lost(error: Exception | None) -> None:
            lost.set_result(None)
            del self._live[channels]
            for node in self._nodes.values():
                if channels in node.connections:
                    node.connections.remove(channels)

        channels = Channels(
            transport,
            self._limits,
            window,
            local=address_of(transport.get_extra_info("sockname")),
            remote=address_of(transport.get_extra_info("peername")),
            process=process,
            on_lost=on_lost,
        )
        self._live[channels] = lost
        return channels

    async def aclose(self) -> None:
        """Close every connection; what was sent is delivered if the peer reads it within a bounded time."""
        for node in self._nodes.values():
            if node.search is not None:
                node.search.cancel()
                await asyncio.wait([node.search])
        live = {**self._live}
        for channels in live:
            channels.close()
        if live:
            _, pending = await asyncio.wait(live.values(), timeout=CLOSE_TIMEOUT)
            for channels in [channels for channels, lost in live.items() if lost in pending]:
                channels.abort()
