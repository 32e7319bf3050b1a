"""The sockets on all interfaces, which come and go."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from pymicro.clock import Clock
from pymicro.errors import BackendUnavailable
from pymicro_registry_mdns._interfaces import Interface, asking_socket, speaking_socket, usable
from pymicro_registry_mdns._timing import wait_until

#: Seconds between looks at the interfaces: usually, while peers cannot ask, and after a failure to send.
CHECK: Final = 10.0
CHECK_WITHOUT: Final = 1.0
CHECK_SOON: Final = 0.1

Address = tuple[Any, ...]
#: What came to port 5353, and from where; returns what to send back there.
Hear = Callable[[bytes, Address], Iterable[bytes]]


class Network:
    """Asks and speaks on every interface. Nothing is opened or sent before `start`.

    Args:
        wanted: names or addresses of interfaces; empty for all.
        clock, logger: the component's.
        hear: gets what comes to port 5353.
        answered: gets what comes to the ports that ask.
        changed: called when an interface came or went.

    Attributes:
        unheard: why peers cannot ask this process; None when they can.
    """

    def __init__(
        self,
        wanted: Sequence[str],
        clock: Clock,
        logger: logging.Logger,
        *,
        hear: Hear,
        answered: Callable[[bytes], None],
        changed: Callable[[], None],
    ) -> None:
        self._wanted, self._clock, self._logger = wanted, clock, logger
        self._hear, self._answered, self._changed = hear, answered, changed
        self._links: dict[Interface, _Link] = {}
        self._checking = asyncio.Lock()
        self._checked = asyncio.Event()
        self._look = asyncio.Event()
        self._check_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.unheard: BackendUnavailable | None = None

    async def start(self) -> None:
        """Open the sockets and follow the interfaces; the second call only waits for the first.

        The caller may be cancelled without a socket being left half open.
        """
        if self._task is None and not self._closing:
            self._task = asyncio.create_task(self._follow(), name="mdns interfaces")
            self._task.add_done_callback(self._ended)
        await self._checked.wait()

    async def aclose(self) -> None:
        """Close everything. What was sent before is on its way."""
        self._closing = True
        async with self._checking:  # a look at the interfaces is short, and leaves sockets behind when cut off
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            await asyncio.gather(*(link.aclose() for link in self._links.values()))
            self._links.clear()
        self._checked.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._checked.set()
        if not task.cancelled() and (error := task.exception()):
            self._logger.error("mdns stopped looking at the interfaces", exc_info=error)

    def is_own(self, address: str) -> bool:
        """Whether an address belongs to this host, as far as it takes part."""
        return any(interface.address == address for interface in self._links)

    def ask(self, packet: bytes) -> None:
        """Send a question, from ports of its own.

        Raises:
            BackendUnavailable: it could not be sent on any interface.
        """
        self._send([link.ask for link in self._links.values()], packet)

    def speak(self, packet: bytes) -> None:
        """Send an announcement or goodbye, from port 5353.

        Raises:
            BackendUnavailable: it could not be sent on any interface.
        """
        self._send([link.speak for link in self._links.values() if link.speaks], packet)

    def _send(self, ways: Sequence[Callable[[bytes], None]], packet: bytes) -> None:
        cause: OSError | None = None
        sent = False
        for way in ways:
            try:
                way(packet)
                sent = True
            except OSError as error:
                cause = error
                self._check_soon()
        if not sent:
            raise self._nothing_usable() from cause

    def _check_soon(self) -> None:
        self._check_at = min(self._check_at, self._clock.monotonic() + CHECK_SOON)
        self._look.set()

    async def _follow(self) -> None:
        while True:
            async with self._checking:
                await self._check()
            self._checked.set()
            self._check_at = self._clock.monotonic() + (CHECK_WITHOUT if self.unheard else CHECK)
            await wait_until(self._clock, lambda: self._check_at, self._look)

    async def _check(self) -> None:
        before = {interface: link.speaks for interface, link in self._links.items()}
        cause: OSError | None = None
        try:
            present = usable(self._wanted)
        except OSError as error:  # nobody can tell, for want of descriptors for example: what is open stays
            present, cause = list(before), error
        for interface in before:
            if interface not in present:
                await self._links.pop(interface).aclose()
        for interface in present:
            link = self._links.setdefault(interface, _Link(interface, self._hear, self._answered))
            cause = await link.open() or cause
            if not link.asks:
                del self._links[interface]
        self._note(cause)
        if {interface: link.speaks for interface, link in self._links.items()} != before:
            self._changed()

    def _note(self, cause: OSError | None) -> None:
        """Remember whether peers can ask, and log when that begins or ends."""
        before = self.unheard
        if not self._links:
            self.unheard = self._nothing_usable()
        elif not any(link.speaks for link in self._links.values()):
            self.unheard = BackendUnavailable(f"UDP port 5353 cannot be shared with the program that holds it: {cause}")
            self.unheard.__cause__ = cause
        else:
            self.unheard = None
        if self.unheard and not before:
            self._logger.warning("mdns unavailable: %s", self.unheard)
        elif before and not self.unheard:
            self._logger.info("mdns available again: %s", ", ".join(sorted({i.name for i in self._links})))

    def _nothing_usable(self) -> BackendUnavailable:
        which = f"none of the interfaces {', '.join(self._wanted)} can" if self._wanted else "no interface here can"
        return BackendUnavailable(f"{which} do multicast: use another registry, for example --registry=memory")


class _Link:
    """The sockets on one interface with one address family."""

    def __init__(self, interface: Interface, hear: Hear, answered: Callable[[bytes], None]) -> None:
        self._interface = interface
        self._hear, self._answered = hear, answered
        self._asking: _Port | None = None
        self._speaking: _Port | None = None

    @property
    def asks(self) -> bool:
        return self._asking is not None

    @property
    def speaks(self) -> bool:
        return self._speaking is not None

    async def open(self) -> OSError | None:
        """Open what is not open; what stood in the way is returned."""
        try:
            if self._asking is None:
                self._asking = await _Port.open(asking_socket(self._interface), self._on_answer)
            if self._speaking is None:
                self._speaking = await _Port.open(speaking_socket(self._interface), self._on_heard)
        except OSError as error:
            return error
        return None

    def ask(self, packet: bytes) -> None:
        if self._asking is not None:
            self._asking.send(packet, self._interface.group)

    def speak(self, packet: bytes) -> None:
        if self._speaking is not None:
            self._speaking.send(packet, self._interface.group)

    def _on_answer(self, data: bytes, _: Address) -> None:
        self._answered(data)

    def _on_heard(self, data: bytes, asker: Address) -> None:
        for packet in self._hear(data, asker):
            try:
                if self._speaking is not None:
                    self._speaking.send(packet, asker)
            except OSError:
                return  # the asker cannot be reached, or has given itself a false address

    async def aclose(self) -> None:
        for port in (self._asking, self._speaking):
            if port is not None:
                await port.aclose()


class _Port(asyncio.DatagramProtocol):
    """One socket. It sends at once or not at all: a datagram that must wait is as good as lost."""

    def __init__(self, sock: socket.socket, received: Callable[[bytes, Address], None]) -> None:
        self._sock, self._received = sock, received
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = asyncio.Event()

    @classmethod
    async def open(cls, sock: socket.socket, received: Callable[[bytes, Address], None]) -> _Port:
        loop = asyncio.get_running_loop()
        port = cls(sock, received)
        try:
            port._transport, _ = await loop.create_datagram_endpoint(lambda: port, sock=sock)
        except BaseException:
            sock.close()
            raise
        return port

    def send(self, packet: bytes, address: Address) -> None:
        with suppress(BlockingIOError):
            # Not by the transport: it would report a failure later, and to somebody else.
            self._sock.sendto(packet, address)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._received(data, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()
