"""One connection to one NATS server, from its handshake to its end. `_link` makes the next one.

The driver does the protocol and is not let reconnect: a new connection gets the certificates that are on disk, tries
the addresses at our own pace, and whoever waits for an answer on the old one hears at once that it is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from pymicro.errors import BackendUnavailable, PymicroError
from pymicro.plugins.toolkit import log
from pymicro_nats import _driver, _errors
from pymicro_nats._login import Login
from pymicro_nats._traffic import Traffic, look_at

#: The driver's own bound of each step of connecting; the caller bounds all of it.
_FOR_EVER: Final = 86400.0

#: Seconds for tasks to end that were cancelled.
_CLOSE_TIME: Final = 1.0


class Session(Traffic):
    """An open connection, from `connect` to `aclose`.

    Args:
        address: the server, `host:port`.
        login: how to log in there.
        inbox_prefix: subject under which the server may answer.
        ping_interval: seconds between two questions whether the server is there, and for each answer.
        name: of this client, for the server's monitoring.
        logger: for what the server complains of.
    """

    def __init__(
        self,
        address: str,
        login: Login,
        *,
        inbox_prefix: str,
        ping_interval: float,
        name: str,
        logger: logging.Logger,
    ) -> None:
        super().__init__(address, login.who, logger)
        self._login = login
        self._inbox_prefix = inbox_prefix
        self._ping_interval = ping_interval
        self._name = name
        self._watcher: asyncio.Task[None] | None = None
        self._lost_hooks: dict[Callable[[], None], None] = {}

    @property
    def discovered(self) -> list[str]:
        """Addresses of the other servers of a cluster, as this one told them."""
        return [f"{uri.hostname}:{uri.port}" for uri in self._client.discovered_servers]

    async def connect(self) -> None:
        """Connect and log in.

        Raises:
            BackendUnavailable, BackendRefused: nobody there, or not let in. Nothing is left then.
            ConfigurationError: the files with the credentials are of no use.
        """
        login = self._login
        try:
            async with _driver.cancellable():
                await self._client.connect(
                    servers=[f"nats://{self.address}"],
                    allow_reconnect=False,
                    dont_randomize=True,
                    connect_timeout=_FOR_EVER,
                    name=self._name,
                    error_cb=self._hear,
                    inbox_prefix=self._inbox_prefix,
                    pending_size=0,  # nothing is buffered without a connection, and no publisher waits uncancellably
                    **login.arguments(lambda: _driver.encrypted(self._client)),
                )
            if not self._client.is_connected:
                raise BackendUnavailable("the server ended the connection during the handshake", self.address)
            login.check(_driver.encrypted(self._client))
            for task in _driver.tasks(self._client):
                task.add_done_callback(self._stopped)
            await self._begin()
        except BaseException as error:
            await self.aclose()
            if isinstance(error, PymicroError) or not isinstance(error, Exception):
                raise
            raise _errors.mapped(error, self.address, login.who) from error
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name=f"nats watch {self.address}")

    async def aclose(self) -> None:
        """End it, whatever the server does. What was not confirmed may not have been sent. Idempotent, bounded."""
        self._end(BackendUnavailable("the connection was closed", self.address))
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait({watcher}, timeout=_CLOSE_TIME)
        await _driver.abort(self._client, _CLOSE_TIME)

    def on_lost(self, hook: Callable[[], None]) -> None:
        """Call `hook` when the connection is gone."""
        self._lost_hooks[hook] = None

    def off_lost(self, hook: Callable[[], None]) -> None:
        """Do not call it any more."""
        self._lost_hooks.pop(hook, None)

    def _end(self, reason: PymicroError) -> None:
        if self.lost.is_set():
            return
        self.lost.set()
        self.reason = reason
        self._abandon(reason)
        for hook in list(self._lost_hooks):
            hook()

    async def _watch(self) -> None:
        while not self.lost.is_set():
            await asyncio.sleep(self._ping_interval)
            try:
                async with asyncio.timeout(self._ping_interval):
                    await self.confirm()
            except TimeoutError:
                self._end(BackendUnavailable(f"the server said nothing for {self._ping_interval:g} s", self.address))
            except PymicroError as error:
                self._end(error)

    async def _hear(self, error: Exception) -> None:
        if not self._inbox:
            raise error  # while it connects: the driver would try again, for minutes
        refused = _errors.violation(error)
        if refused is None:
            if not _errors.is_driver(error):
                log(self._logger, logging.ERROR, "nats callback failed", exc_info=error, error=repr(error))
            return
        self._was_refused(*refused)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """One of the driver's tasks ended, so the connection has."""
        look_at(task)
        error = self._client.last_error
        self._end(_errors.mapped(error, self.address, self._login.who) if error is not None else self.reason)
