"""Which agent is asked: one at a time, replaced by the next address when it is lost or hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from pymicro.errors import BackendUnavailable, ConfigurationError, ConnectionFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, join_address, log, server_address, start_task
from pymicro_registry_consul._client import ConsulServer, Overloaded
from pymicro_registry_consul._options import ConsulOptions

T = TypeVar("T")

DEFAULT_PORT: Final = 8500
DEFAULT_ADDRESS: Final = f"127.0.0.1:{DEFAULT_PORT}"


def read_address(text: str) -> tuple[str, int]:
    """Host and port of an address that may lack the port.

    Raises:
        ConfigurationError: it is of another form.
    """
    return server_address(text, DEFAULT_PORT, "Consul")


class Session:
    """Keeps to the first address that answers, until it fails: then the next one is tried.

    Args:
        options, build: as of the registry.

    Raises:
        ConfigurationError: an address is no address, or the token no token.
    """

    def __init__(self, options: ConsulOptions, build: Build) -> None:
        if not (options.token.isascii() and options.token.isprintable()):
            raise ConfigurationError("the Consul token has characters that no token has: look for a line end in it")
        self._options, self._build = options, build
        self._addresses = [read_address(address) for address in build.addresses or (DEFAULT_ADDRESS,)]
        self._tls: TLSContext | None = None
        self._next = 0
        self._server: ConsulServer | None = None
        self._watchdog: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lost_at: float | None = None
        self._closed = False

    def open(self) -> None:
        """Read the files of TLS.

        Raises:
            ConfigurationError: they cannot be used.
        """
        if self._build.tls.enabled:
            self._tls = TLSContext(self._build.tls, "client", clock=self._build.clock, logger=self._build.logger)

    async def call(self, ask: Callable[[ConsulServer], Awaitable[T]]) -> T:
        """What `ask` says. It is called again for other addresses when one fails, so it must be repeatable.

        Raises:
            BackendUnavailable: nobody answered within the time-out of operations.
            BackendRefused: an agent answered no.
        """
        failures: list[BackendUnavailable] = []
        server: ConsulServer | None = None
        try:
            async with asyncio.timeout(self._build.timeout):
                for _ in self._addresses:
                    server = self.server()
                    try:
                        answer = await ask(server)
                    except BackendUnavailable as error:
                        failures.append(error)
                        self.failed(server, error)
                    else:
                        self.answered(server)
                        return answer
        except TimeoutError as error:
            late = BackendUnavailable(f"no answer within {self._build.timeout:g} s", self._names())
            if server is not None:
                self.failed(server, late)
            raise late from error
        if len(failures) == 1:
            raise failures[0]
        raise BackendUnavailable("; ".join(map(str, failures))) from failures[-1]

    def server(self) -> ConsulServer:
        """The one to ask now.

        Raises:
            BackendUnavailable: the registry was closed.
        """
        if self._closed:
            raise BackendUnavailable("the registry was closed")
        if self._server is None:
            self._server = self._make(*self._addresses[self._next])
            self._watchdog = self._start(self._watch_over(self._server), "consul heartbeat")
        return self._server

    def failed(self, server: ConsulServer, error: BackendUnavailable) -> None:
        """A server failed: ask another one, or over other connections, from now on. What waits for it fails."""
        if server is not self._server:
            return
        self._note_loss(error)
        if isinstance(error, Overloaded) and len(self._addresses) == 1:
            return  # its connections are good
        self._server = None
        self._next = (self._next + 1) % len(self._addresses)
        if self._watchdog is not None and self._watchdog is not asyncio.current_task():
            self._watchdog.cancel()
        self._watchdog = None
        _ = self._start(server.aclose(), "consul connection closes")

    def answered(self, server: ConsulServer) -> None:
        """A server answered: an outage, if there was one, is over."""
        if self._lost_at is not None:
            seconds, self._lost_at = self._build.clock.monotonic() - self._lost_at, None
            log(self._build.logger, logging.INFO, "consul back", address=server.address, seconds=round(seconds, 3))

    async def elsewhere(self, address: str, ask: Callable[[ConsulServer], Awaitable[T]]) -> T:
        """What the server at this address says, whichever is used otherwise."""
        server = self._make(*read_address(address))
        try:
            return await ask(server)
        finally:
            await server.aclose()

    async def aclose(self) -> None:
        """End all connections and tasks."""
        self._closed = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _make(self, host: str, port: int) -> ConsulServer:
        options = self._options
        # With somebody else to ask, a server that hangs leaves time for that.
        timeout = self._build.timeout / (2 if len(self._addresses) > 1 else 1)
        return ConsulServer(
            host,
            port,
            self._tls,
            token=options.token,
            timeout=timeout,
            connect_timeout=min(options.connect_timeout, timeout),
        )

    async def _watch_over(self, server: ConsulServer) -> None:
        """Blocking queries do not notice an agent that hangs, so it is asked something else."""
        while True:
            await self._build.clock.sleep(self._options.heartbeat)
            if not server.watches:
                continue
            try:
                await server.probe()
            except BackendUnavailable as error:
                self.failed(server, error)
                if server is not self._server:
                    return
            except ConnectionFailed:
                pass  # it answers; those who are refused say so

    def _start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = start_task(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _names(self) -> str:
        return ", ".join(join_address(*address) for address in self._addresses)

    def _note_loss(self, error: BackendUnavailable) -> None:
        if self._lost_at is None:
            self._lost_at = self._build.clock.monotonic()
            log(self._build.logger, logging.WARNING, "consul lost", error=str(error))
