"""The server: what is served, and the life of serving it."""

from __future__ import annotations

import asyncio
import logging
import socket as _socket
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from pymicro import errors
from pymicro._internal.backoff import backoff
from pymicro._internal.logs import log
from pymicro.broker import Broker
from pymicro.clock import Clock, SystemClock
from pymicro.codec import CodecTable
from pymicro.message import Message
from pymicro.plugins import Build, Limits
from pymicro.plugins.toolkit import advertised
from pymicro.record import Node, ServiceRecord
from pymicro.rpc import Deadlines, Middleware
from pymicro.server._connection import Connection
from pymicro.server._debug import Counters, Debug, Health, Statistics
from pymicro.server._endpoints import Binding, Endpoint, bind
from pymicro.server._options import ServerOptions
from pymicro.server._presence import Presence, Registrar
from pymicro.server._subscriptions import Subscriptions
from pymicro.server._threads import Threads
from pymicro.transport import Listener, Socket, Transport

_MAX_ROUTES: Final = 1024

_FIRST_WAIT: Final = 0.1  # seconds before the transport's server is tried again
_LONGEST_WAIT: Final = 2.0

Probe = Callable[[], Awaitable[object]]
State = Literal["stopped", "serving", "draining", "refusing"]


class Parts(msgspec.Struct, kw_only=True):
    """The open components that a server works with.

    Attributes:
        build: identity, clock, limits, logger.
        options: the server's own options.
        transport, registry, codecs: what it listens with, registers at, reads bodies by.
        brokers: by instance name; `""` is the default one.
        address: where others listen for it and hand sockets to `Server.listen`; None: it listens by itself.
    """

    build: Build
    options: ServerOptions
    transport: Transport
    registry: Registrar
    codecs: CodecTable
    brokers: Mapping[str, Broker]
    address: str | None = None


class Server:
    """Handlers and subscribers of one service. It can be started and stopped again and again.

    Attributes:
        name: the service's name.
        events: the subscribers.
        stats: counters since the start.
        in_flight, streams, connections: how many there are now.
        draining: whether callers shall go elsewhere.
        routes: who serves calls without an envelope, by their endpoint and content type; filled as they come.
        node: what is registered; None while stopped.
        siblings: asks all processes that serve at this one's address; None while it is the only one.
        succeeded: whether others go on serving at the address when this one stops: it then accepts nothing more from
            the beginning, and is done as soon as its callers are gone.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.events = Subscriptions(name)
        self.in_flight = 0
        self.streams = 0
        self.connections = 0
        self.node: Node | None = None
        self.siblings: Callable[[], Awaitable[tuple[Health, Statistics]]] | None = None
        self.succeeded = False
        self.options = ServerOptions()
        self.limits = Limits()
        self.clock: Clock = SystemClock()
        self.deadlines = Deadlines(self.clock)
        self.logger = logging.getLogger("pymicro.server")
        self.codecs = CodecTable([])
        self.routes: dict[tuple[str | None, str | None], Binding] = {}
        self.stats = Counters(0.0)
        self._calls: list[Middleware] = []
        self._streams: list[Middleware] = []
        self._probes: dict[str, Probe] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._handlers: set[str] = set()
        self._state: State = "stopped"
        self.draining = False
        self._idle: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._transport: Transport | None = None
        # one that accepts is kept by its event loop, one that does not by its connections
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._presence: Presence | None = None
        self._threads: Threads | None = None
        self._add(bind(Debug(self), None, None, internal=True))

    # composition

    def handle(self, handler: object, *, interface: type[Any] | None = None, name: str | None = None) -> None:
        """Serve the public methods of `handler`.

        Args:
            handler: an object; each public method is an endpoint `Handler.Method`.
            interface: a Protocol, ABC or base class that names the endpoints instead of the object's class.
            name: replaces the class's name; None keeps it.

        Raises:
            InvalidHandler: a signature cannot be served, the object does not fit, or the name is taken.
            UsageError: the server runs.
        """
        if self._state != "stopped":
            raise errors.UsageError("handle() comes before the service starts")
        self._add(bind(handler, interface, name))

    def _add(self, endpoints: Sequence[Endpoint]) -> None:
        handler = endpoints[0].spec.name.partition(".")[0]
        if handler in self._handlers:
            raise errors.InvalidHandler(
                f"two handlers are called {handler!r}: give one another name with handle(..., name=...)"
            )
        self._handlers.add(handler)
        self._endpoints.update((endpoint.spec.name, endpoint) for endpoint in endpoints)

    def use(
        self, *, calls: Sequence[Middleware] = (), streams: Sequence[Middleware] = (), events: Sequence[Middleware] = ()
    ) -> None:
        """Append middleware; the first in a list is the outermost. It takes effect at the next start."""
        self._calls += calls
        self._streams += streams
        self.events.middleware += events

    def check(self, name: str, probe: Probe) -> None:
        """Add a health check: `probe` raises when something is wrong. A failing one withdraws the registration."""
        self._probes[name] = probe

    def rename(self, name: str) -> None:
        """Serve under another name from the next start on."""
        self.name = self.events.service = name

    @property
    def serves(self) -> bool:
        """Whether there is anything to listen for."""
        return len(self._handlers) > 1 or bool(self.events)

    # what a connection asks for

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint called `name`.

        Raises:
            BadRequest: the name is not `Handler.Method`.
            NotFound: there is none; the text names near ones.
        """
        found = self._endpoints.get(name)
        if found is not None:
            return found
        if name.count(".") != 1:
            raise errors.BadRequest(f"endpoint {name[:200]!r} is not Handler.Method", self.name)
        import difflib

        near = difflib.get_close_matches(name[:200], self._endpoints, n=1)
        hint = f", did you mean {near[0]}" if near else ""
        raise errors.NotFound(f"{self.name} has no endpoint {name[:200]}{hint}", self.name)

    def remember(self, route: tuple[str | None, str | None], binding: Binding) -> None:
        """Serve what comes under this endpoint and content type by `binding` from now on."""
        if len(self.routes) < _MAX_ROUTES:  # callers choose the spelling
            self.routes[route] = binding

    def refusal(self, message: Message) -> errors.Error | None:
        """Why a message is not served at all; None when it is."""
        if self._state == "refusing":
            return errors.Unavailable("the node is shutting down", self.name, executed="no")
        calls = self.in_flight - self.streams
        if calls < self.options.max_requests:
            return None
        if message.headers.lowered.get("micro-endpoint", "").startswith("Debug."):
            return None  # a probe that is refused under load says nothing
        return errors.TooManyRequests(f"{calls} requests are in flight, the limit", self.name)

    def timeout_of(self, lowered: Mapping[str, str]) -> float | None:
        """Seconds that the caller still waits; None when it does not say. Unreadable values are ignored, as Go does."""
        text = lowered.get("timeout")
        if text is None or len(text) > 20 or not (text.isdecimal() and text.isascii()):
            return None
        return int(text) / 1e9

    def request_done(self) -> None:
        """A request left; wakes the stop that waits for the last one."""
        self.in_flight -= 1
        if self._idle is not None and self.in_flight == 0 and not self._idle.done():
            self._idle.set_result(None)

    # life

    async def start(self, parts: Parts) -> None:
        """Listen, subscribe, register.

        Raises:
            ConfigurationError: the address cannot be listened on, or the registry cannot hold the record.
            ConnectionFailed: the registry or broker refused.
        """
        self.options, self.codecs = parts.options, parts.codecs
        self.routes.clear()
        self.clock, self.limits, self.logger = parts.build.clock, parts.build.limits, parts.build.logger
        self.deadlines = Deadlines(self.clock)
        self.stats = Counters(self.clock.time())
        self._threads = threads = Threads(self.options.threads)
        for endpoint in self._endpoints.values():
            endpoint.prepare(self._calls, self._streams, lambda: threads)
        self._state = "serving"
        self._transport = parts.transport
        address = parts.address
        if address is None:
            address = (await self.listen()).addresses[0]
        await self.events.start(parts.brokers, parts.codecs, self.clock, self.logger, self.options, threads)
        self.node = self._describe(parts, address)
        self._presence = Presence(
            parts.registry, self._record(self.node), self._probes, self.options, self.clock, self.logger
        )
        await self._presence.start()

    async def listen(self, sock: _socket.socket | None = None) -> Listener:
        """Accept connections on a socket that is listening, which it then owns; None: at `--server_address`.

        A transport that works through a server waits for it, and says so once.
        """
        if self._transport is None:
            raise errors.UsageError("listen() comes after the server started")
        failures = 0
        while True:
            try:
                listener = await self._transport.listen(self.options.address, self._accept, sock=sock)
            except errors.BackendUnavailable as error:
                if not failures:
                    log(self.logger, logging.WARNING, "waiting for the transport", service=self.name, error=str(error))
                failures += 1
                await self.clock.sleep(backoff(failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT))
            else:
                self._listeners.add(listener)
                return listener

    def _describe(self, parts: Parts, address: str) -> Node:
        own = {
            "protocol": "mucp",
            "server": "mucp",
            "transport": parts.transport.name,
            "registry": parts.registry.name,
            "broker": parts.brokers[""].name if "" in parts.brokers else "",
        }
        identity = parts.build.identity
        address = advertised(address, self.options.advertise)
        return Node(identity.node_id, address, {**own, **parts.transport.node_metadata, **self.options.metadata})

    def _record(self, node: Node) -> ServiceRecord:
        endpoints = [endpoint.spec.record() for endpoint in self._endpoints.values() if not endpoint.internal]
        return ServiceRecord(
            name=self.name,
            version=self.options.version,
            metadata=self.options.metadata,
            endpoints=(*endpoints, *self.events.records()),
            nodes=(node,),
        )

    async def _accept(self, socket: Socket) -> None:
        connection = Connection(self, socket)
        if self.connections >= self.options.max_connections:
            error = errors.Unavailable(f"{self.connections} connections are open, the limit", self.name, executed="no")
            await connection.refuse(error)
            return
        self.connections += 1
        try:
            await connection.serve()
        finally:
            connection.forget()
            self.connections -= 1
            if self._gone is not None and self.connections == 0:
                _release(self._gone)

    async def stop(self) -> None:
        """Deregister, keep answering while callers move elsewhere, refuse, finish what is in flight, close.

        Cancelled, it goes straight to closing: what is in flight is cut off.
        """
        if self._state == "stopped":
            return
        try:
            await self._drain()
        finally:
            try:
                await self._close()
            finally:
                self._state, self.draining = "stopped", False
                self.node, self._transport, self._presence = None, None, None

    async def _close(self) -> None:
        for listener in [*self._listeners]:
            await listener.aclose()
        self._listeners.clear()
        await self.events.aclose()
        self.deadlines.close()
        if self._threads is not None:
            await self._threads.aclose()

    async def _drain(self) -> None:
        self._state, self.draining = "draining", True
        if self.succeeded:
            await self._stop_accepting()
        if self._presence is not None:
            await self._presence.aclose()
        events = asyncio.ensure_future(self.events.drain(self.options.shutdown_timeout))
        try:
            if self.succeeded:
                await self._wait_gone(self.options.drain_delay)
            elif self.connections:  # callers without a connection are refused by the closed port and go elsewhere
                await self.clock.sleep(self.options.drain_delay)
            self._state = "refusing"
            await self._stop_accepting()
            await self._wait_idle(self.options.shutdown_timeout)
            await events
        finally:
            if not events.done():
                events.cancel()
                await asyncio.wait([events])

    async def _stop_accepting(self) -> None:
        for listener in [*self._listeners]:
            await listener.stop_accepting()

    async def _wait_gone(self, seconds: float) -> None:
        if not self.connections:
            return
        self._gone = gone = asyncio.get_running_loop().create_future()
        timer = self.clock.call_later(seconds, _release, gone)
        try:
            await gone
        finally:
            timer.cancel()
            self._gone = None

    async def _wait_idle(self, seconds: float) -> None:
        over = self.clock.monotonic() + seconds
        while self.in_flight and (left := over - self.clock.monotonic()) > 0:  # one may have come with the last answer
            self._idle = idle = asyncio.get_running_loop().create_future()
            timer = self.clock.call_later(left, _release, idle)
            try:
                await idle
            finally:
                timer.cancel()
                self._idle = None
        if self.in_flight:
            log(self.logger, logging.WARNING, "requests cut off", service=self.name, in_flight=self.in_flight)

    async def health(self) -> Health:
        """Whether this node is ready for calls, and if not, why."""
        if self._state != "serving" or self._presence is None:
            return Health(status="draining" if self.draining else "stopped")
        reasons = {**self._presence.reasons(), **self.events.reasons()}
        return Health(status="failing" if reasons else "ok", reasons=reasons)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
