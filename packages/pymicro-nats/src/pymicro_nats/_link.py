"""The connection to whichever server answers: made at first use, and made again when it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError, PymicroError
from pymicro.plugins import Build
from pymicro.plugins.toolkit import backoff, log
from pymicro_nats._login import Login, logins
from pymicro_nats._options import NatsOptions
from pymicro_nats._session import Session

#: Seconds between two rounds through the addresses, at first and at most: a server is found soon after its return.
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0

#: Servers of a cluster that are remembered, besides those that the user named.
_DISCOVERED: Final = 64


class Link:
    """One connection for all of a component.

    Args:
        options: credentials and times.
        build: addresses, TLS, clock, logger.

    Raises:
        ConfigurationError: addresses, certificates or files with credentials are of no use.
    """

    def __init__(self, options: NatsOptions, build: Build) -> None:
        self._options = options
        self._build = build
        self._logins: Mapping[str, Login] = logins(options, build)
        self._discovered: tuple[str, ...] = ()
        self._session: Session | None = None
        self._error: PymicroError | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._changed = asyncio.Event()

    async def session(self) -> Session:
        """The connection: made if there was none yet, waited for while it is made again. Bound it with `within`.

        Raises:
            BackendUnavailable: the first attempt failed at every address.
            BackendRefused: a server does not let us in.
        """
        while True:
            session = self._session
            if session is not None and not session.lost.is_set():
                return session
            if self._keeper is None:
                await self._start()
            elif isinstance(self._error, BackendRefused):
                raise BackendRefused(self._error.detail, self._error.address) from self._error
            else:
                self._changed.clear()
                await self._changed.wait()

    @property
    def ready(self) -> Session | None:
        """The connection, if it is there and takes something now: the short way around `session` and `within`."""
        session = self._session
        return None if session is None or session.congested or session.lost.is_set() else session

    @asynccontextmanager
    async def within(self, seconds: float, what: str) -> AsyncIterator[None]:
        """Bound the block in time.

        Raises:
            BackendUnavailable: it took longer; says why, as far as that is known.
        """
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            why = f": {self._error}" if self._error is not None else ""
            raise BackendUnavailable(f"{what}: no answer from NATS within {seconds:g} s{why}") from self._error or error

    async def aclose(self) -> None:
        """End the connection. Bounded in time."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()

    async def _start(self) -> None:
        async with self._starting:
            if self._keeper is None:
                self._session = session = await self._connect()
                self._keeper = asyncio.get_running_loop().create_task(self._keep(session), name="nats connection")

    async def _keep(self, session: Session) -> None:
        logger = self._build.logger
        while True:
            await session.lost.wait()
            self._error = session.reason
            log(logger, logging.WARNING, "nats connection lost", address=session.address, error=str(session.reason))
            self._discovered = tuple(session.discovered[:_DISCOVERED])
            await session.aclose()  # while `aclose` finds it: it may be cancelled here
            self._session = session = await self._connect_again()
            self._error = None
            log(logger, logging.INFO, "nats connection works again", address=session.address)
            self._changed.set()

    async def _connect_again(self) -> Session:
        failures = 0
        while True:
            try:
                return await self._connect()
            except PymicroError as error:
                self._error = error
                self._changed.set()
            failures += 1
            await self._build.clock.sleep(backoff(failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT))

    async def _connect(self) -> Session:
        """Try each address once, in any order."""
        named = random.sample(list(self._logins), len(self._logins))
        others = [address for address in self._discovered if address not in self._logins]
        errors: list[PymicroError] = []
        for address in (*named, *others):
            session = self._new_session(address)
            try:
                async with asyncio.timeout(self._options.connect_timeout):
                    await session.connect()
            except TimeoutError:
                errors.append(BackendUnavailable(f"no connection within {self._options.connect_timeout:g} s", address))
            except (BackendUnavailable, BackendRefused, ConfigurationError) as error:
                errors.append(error)
            else:
                return session
        raise _sum_of(errors)

    def _new_session(self, address: str) -> Session:
        options = self._options
        login = self._logins.get(address) or next(iter(self._logins.values()))
        return Session(
            address,
            login,
            inbox_prefix=options.inbox_prefix,
            ping_interval=options.ping_interval,
            name=self._build.identity.node_id,
            logger=self._build.logger,
        )


def _sum_of(errors: list[PymicroError]) -> PymicroError:
    """One error for all addresses. A refusal weighs more: it does not pass."""
    if len(errors) == 1:
        return errors[0]
    kind = next((type(error) for error in errors if isinstance(error, BackendRefused)), BackendUnavailable)
    summary = kind("no NATS server can be reached: " + "; ".join(str(error) for error in errors))
    summary.__cause__ = errors[0]
    return summary
