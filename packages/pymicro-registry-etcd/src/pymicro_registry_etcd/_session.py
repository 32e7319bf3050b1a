"""The connection to etcd: one at a time, to one of the addresses, replaced when it is lost or hangs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError, ConnectionFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import join_address, log, server_address, start_task
from pymicro_registry_etcd._client import EtcdServer, TokenExpired
from pymicro_registry_etcd._options import EtcdOptions

T = TypeVar("T")

DEFAULT_PORT: Final = 2379
DEFAULT_ADDRESS: Final = f"127.0.0.1:{DEFAULT_PORT}"

_ATTEMPTS: Final = 2


def read_address(text: str) -> str:
    """`host:port` of an address that may lack the port.

    Raises:
        ConfigurationError: it is of another form.
    """
    return join_address(*server_address(text, DEFAULT_PORT, "etcd"))


class Session:
    """Finds a server that answers and keeps to it, until it fails: then the next address is tried.

    Args:
        options, build: as of the registry.

    Raises:
        ConfigurationError: an address is no address, or there is a password without a user name.
    """

    def __init__(self, options: EtcdOptions, build: Build) -> None:
        if options.password and not options.username:
            raise ConfigurationError("an etcd password is given without a user name: set --registry_etcd_username")
        self._options, self._build = options, build
        self._addresses = [read_address(address) for address in build.addresses or (DEFAULT_ADDRESS,)]
        self._next = random.randrange(len(self._addresses))  # a mesh spreads over the servers
        self._server: EtcdServer | None = None
        self._dialling: asyncio.Task[EtcdServer] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._watchdog: asyncio.Task[None] | None = None
        self._lost_at: float | None = None
        self._closed = False

    async def call(self, ask: Callable[[EtcdServer], Awaitable[T]]) -> T:
        """What `ask` says. It is called again with another connection if the first one fails, so it must be repeatable.

        Raises:
            BackendUnavailable: no server answered within the time-out of operations.
            BackendRefused: a server answered no.
        """
        server: EtcdServer | None = None
        try:
            async with asyncio.timeout(self._build.timeout):
                for attempt in range(_ATTEMPTS):
                    server = await self._connected()
                    try:
                        return await ask(server)
                    except (BackendUnavailable, TokenExpired) as error:
                        self.drop(server, error)
                        if attempt == _ATTEMPTS - 1:
                            raise
        except TimeoutError as error:
            failed = BackendUnavailable(f"no answer within {self._build.timeout:g} s", ", ".join(self._addresses))
            if server is not None:
                self.drop(server, failed)
            raise failed from error
        raise AssertionError("unreachable")

    def drop(self, server: EtcdServer, error: ConnectionFailed) -> None:
        """Use another connection from now on. What runs on this one fails."""
        if server is not self._server:
            return
        self._server = None
        if self._watchdog is not None and self._watchdog is not asyncio.current_task():
            self._watchdog.cancel()
        self._watchdog = None
        self._closing.add(closing := self._start(server.aclose(), "etcd connection closes"))
        closing.add_done_callback(self._closing.discard)
        self._note_loss(error)

    async def aclose(self) -> None:
        """Close the connection and end all tasks."""
        self._closed = True
        tasks = list(self._tasks)
        for task in self._tasks - self._closing:  # closing waits for nobody
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._watchdog = None
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()

    async def _connected(self) -> EtcdServer:
        if self._closed:
            raise BackendUnavailable("the registry was closed")
        if self._server is not None:
            return self._server
        if self._dialling is None:  # one for all who wait, whoever of them gives up
            self._dialling = self._start(self._dial(), "etcd connects")
            self._dialling.add_done_callback(self._dialled)
        dialling = self._dialling
        await asyncio.wait({dialling})
        if dialling.cancelled():
            raise BackendUnavailable("the registry was closed")
        return dialling.result()

    def _dialled(self, task: asyncio.Task[EtcdServer]) -> None:
        self._dialling = None
        if not task.cancelled() and isinstance(error := task.exception(), ConnectionFailed):
            self._note_loss(error)

    async def _dial(self) -> EtcdServer:
        failures: list[str] = []
        for _ in self._addresses:
            address = self._addresses[self._next]
            self._next = (self._next + 1) % len(self._addresses)
            try:
                self._server = await self._greet(address)
            except BackendUnavailable as error:
                failures.append(str(error))
                continue
            self._note_return(address)
            self._watchdog = self._start(self._watch_over(self._server), "etcd heartbeat")
            return self._server
        raise BackendUnavailable("; ".join(failures))

    async def _greet(self, address: str) -> EtcdServer:
        options = self._options
        # With somebody else to ask, a server that hangs leaves time for that.
        timeout = self._build.timeout / (2 if len(self._addresses) > 1 else 1)
        server = EtcdServer(
            address,
            self._build.tls,
            username=options.username,
            password=options.password,
            timeout=timeout,
            connect_timeout=min(options.connect_timeout, timeout),
        )
        try:
            await server.greet()
        except BaseException:
            await server.aclose()
            raise
        return server

    async def _watch_over(self, server: EtcdServer) -> None:
        """Watches do not notice a server that hangs, so it is asked something else on the same connection."""
        while True:
            await self._build.clock.sleep(self._options.heartbeat)
            if not server.watches:
                continue
            try:
                await server.probe()
            except BackendUnavailable as error:
                self.drop(server, error)
                return
            except BackendRefused:
                pass  # it answers; those who are refused say so

    def _start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = start_task(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _note_loss(self, error: ConnectionFailed) -> None:
        if self._lost_at is None and not isinstance(error, TokenExpired):
            self._lost_at = self._build.clock.monotonic()
            log(self._build.logger, logging.WARNING, "etcd lost", error=str(error))

    def _note_return(self, address: str) -> None:
        if self._lost_at is not None:
            seconds, self._lost_at = self._build.clock.monotonic() - self._lost_at, None
            log(self._build.logger, logging.INFO, "etcd back", address=address, seconds=round(seconds, 3))
