"""The transport's contract: ordered messages both ways between two addresses."""

from __future__ import annotations

import asyncio
import socket as _socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pymicro.message import Message
from pymicro.plugins.toolkit import Component
from pymicro.record import Node

#: What a listener does with each new socket: it awaits the coroutine in a task of its own and then closes the socket.
Accept = Callable[["Socket"], Awaitable[None]]


class Socket(ABC):
    """One bidirectional, ordered sequence of messages. It carries one call or stream at a time.

    A transport may carry many sockets on one connection to a node.

    Attributes:
        local, remote: the two addresses, for people and logs.
        connected: whether the socket can still carry messages, as far as this side knows.
        on_disconnect: called once, in the loop, when the peer is gone or the socket broke, whether or not anybody
            is receiving; never by `aclose` of this side. Set it at any time: if the peer is gone already, it is called
            soon after.
    """

    local: str = ""
    remote: str = ""
    connected: bool = False

    #: For implementations: the peer is gone or the socket broke; and this side closed it.
    _lost: bool = False
    _closed: bool = False
    _on_disconnect: Callable[[], None] | None = None

    @property
    def on_disconnect(self) -> Callable[[], None] | None:
        """See the class."""
        return self._on_disconnect

    @on_disconnect.setter
    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        self._on_disconnect = callback
        if callback is not None and self._lost and not self._closed:
            asyncio.get_running_loop().call_soon(self._notify)

    def _notify(self) -> None:
        """For implementations: call `on_disconnect`, unless that was done, or this side closed the socket."""
        callback, self._on_disconnect = self._on_disconnect, None
        if callback is not None and not self._closed:
            callback()

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Send one message after all earlier ones. One sender at a time.

        Returns when the message is on its way and less than `Limits.buffer` waits to be written, so a peer that
        stopped reading makes the sender wait. Cancelled before it began to write, it wrote nothing; cancelled later,
        it has written the whole message or broken the socket.

        Raises:
            Disconnected: the peer is gone.
            TooLarge: the message is over a limit; nothing was written and the socket is sound.
            Closed: this side closed the socket.
        """

    @abstractmethod
    async def recv(self) -> Message:
        """The next message. One receiver at a time. Cancellation loses no message.

        Messages that arrived before the peer went away are still delivered.

        Raises:
            Disconnected: the peer is gone.
            Error: the peer's message breaks a limit (`TooLarge`), or the peer answered with a failure of the
                transport's own (an HTTP status other than 200). On the accepting side one more message can be sent,
                the answer; then the socket must be closed.
            ProtocolViolation: what arrived is no message.
            Closed: this side closed the socket.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close. What was sent is still delivered if the peer reads it within a bounded time. Idempotent.

        A `recv` or `send` that waits raises `Closed`.
        """


class Listener(ABC):
    """A transport's open door.

    Attributes:
        addresses: where it listens, with the port that was chosen; the first is the one to register.
    """

    addresses: Sequence[str]

    @abstractmethod
    async def stop_accepting(self) -> None:
        """Refuse new connections; those that exist go on. Idempotent."""

    @abstractmethod
    async def aclose(self) -> None:
        """Stop accepting, cancel the tasks of accepted sockets, close the sockets, wait for them. Idempotent."""


class Transport(Component):
    """Opens sockets to nodes and listens for them.

    Attributes:
        name: the name in node metadata, such as `http`.
        takes_socket: whether `listen` takes a TCP socket that is bound already, as worker processes hand it down.
        node_metadata: what else the metadata of the nodes that it serves shall say to `dial`.
    """

    name: str = ""
    takes_socket: bool = False
    node_metadata: Mapping[str, str] = {}

    @abstractmethod
    async def dial(self, node: Node, *, timeout: float) -> Socket:
        """A new socket to `node`. May be called concurrently.

        Args:
            node: where to; its metadata may say how.
            timeout: seconds for the whole of it.

        Raises:
            DialFailed: refused, unreachable, timed out, or the address makes no sense. Nothing was sent.
        """

    @abstractmethod
    async def listen(self, address: str, accept: Accept, *, sock: _socket.socket | None = None) -> Listener:
        """Listen at `address` and run `accept(socket)` for each peer.

        Args:
            address: the transport's own form; `""` or `":0"` leaves the choice to it. A range `host:8000-8010` takes
                the first free port.
            accept: runs in a task that the listener owns. An exception in it is logged and closes that socket only.
            sock: a bound socket handed down by a supervisor; `address` is then ignored. Transports without
                sockets refuse it.

        Raises:
            ConfigurationError: the address is malformed, in use, or not ours.
            BackendUnavailable: a transport behind a server: it cannot be reached.
            BackendRefused: a transport behind a server: credentials or permissions.
        """
