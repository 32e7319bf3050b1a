"""The way to the server: addresses, connections, and what is asked of it. The only module that uses the driver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

from redis import exceptions as redis_errors
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection

from pymicro.errors import BackendUnavailable, ConfigurationError, ConnectionFailed
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, join_address, log, split_address
from pymicro_broker_redis import _scripts
from pymicro_broker_redis._errors import is_read_only, mapped, refusal
from pymicro_broker_redis._options import RedisBrokerOptions

_DEFAULT_ADDRESS: Final = "127.0.0.1:6379"
#: Seconds for which a connection may be asked to wait for messages.
LONGEST_BLOCK: Final = 1.0

#: Seconds in which a server must end TLS.
_GOODBYE: Final = 0.5

_SCRIPTS: Final = ("publish", "attach", "tend", "ack", "retry", "extend", "leave")


class Addresses:
    """Where the server may be, and where it was last. One address after the other is tried.

    Args:
        addresses: each `host:port`; none for the default.

    Raises:
        ConfigurationError: an address has another form.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._all = [_parts(address) for address in addresses or (_DEFAULT_ADDRESS,)]
        self._index = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def current(self) -> tuple[str, int]:
        """Host and port to use now."""
        return self._all[self._index]

    def leave(self, address: tuple[str, int]) -> None:
        """It does not serve: use the next one, unless somebody went on already."""
        if address == self.current:
            self._index = (self._index + 1) % len(self._all)

    def __str__(self) -> str:
        return ", ".join(join_address(*address) for address in self._all)


def _parts(address: str) -> tuple[str, int]:
    if "://" in address:
        raise ConfigurationError(
            "the redis broker's address is host:port; user, password, database and TLS are options of their own"
        )
    host, ports = split_address(address)
    if not host or len(ports) != 1 or not ports[0]:
        raise ConfigurationError(f"address {address!r} of the redis broker is not host:port")
    return host, ports[0]


class _Searching(Connection):
    """A connection that tries all addresses when it connects."""

    def __init__(self, *, addresses: Addresses, tls: TLSContext | None, **options: Any) -> None:
        super().__init__(**options)
        self._addresses = addresses

    async def connect(self) -> None:
        """Connect, if it is not connected; the first address that answers is the one."""
        left = len(self._addresses)
        while not self.is_connected:
            self.host, self.port = self._addresses.current
            try:
                async with asyncio.timeout(self.socket_connect_timeout):
                    await cast(Any, super()).connect()
            except redis_errors.AuthenticationError:
                raise
            except (redis_errors.ConnectionError, redis_errors.TimeoutError, TimeoutError):
                self._addresses.leave((self.host, self.port))
                left -= 1
                if not left:
                    raise


class _SearchingTLS(_Searching, SSLConnection):
    """The same with TLS, whose certificates may be replaced at any time."""

    def __init__(self, *, addresses: Addresses, tls: TLSContext, **options: Any) -> None:
        super().__init__(addresses=addresses, tls=tls, **options)
        self.ssl_context: Any = tls  # all that the driver asks of it is `get`

    def _connection_arguments(self) -> dict[str, Any]:
        # The driver has no option for it, and asyncio waits half a minute for a hanging server to say good-bye.
        return {**super()._connection_arguments(), "ssl_shutdown_timeout": _GOODBYE}


class Link:
    """Connections to one server, which may be at one of several addresses.

    Args:
        options: login, database, bounds.
        build: addresses, TLS, time-outs.

    Raises:
        ConfigurationError: an address or a certificate cannot be used.
    """

    def __init__(self, options: RedisBrokerOptions, build: Build) -> None:
        self.addresses = Addresses(build.addresses)
        self._options = options
        self._logger = build.logger
        self._timeout = build.timeout
        tls = TLSContext(build.tls, "client", clock=build.clock, logger=build.logger) if build.tls.enabled else None
        self._class: type[Connection] = _Searching if tls is None else _SearchingTLS
        self._settings: dict[str, Any] = {
            "addresses": self.addresses,
            "tls": tls,
            "db": options.database,
            "username": options.username,
            "password": options.password,
            "socket_connect_timeout": options.connect_timeout,
            # The driver would wait with `asyncio.wait_for`, which loses cancellations before Python 3.12.
            "socket_timeout": None,
            "protocol": 2,
            "driver_info": None,
        }
        self._pool = BlockingConnectionPool(
            max_connections=options.max_connections,
            timeout=None,  # each request has its own
            connection_class=self._class,
            **self._settings,
        )
        self._client: Any = Redis(connection_pool=self._pool)
        self._scripts = {name: self._client.register_script(getattr(_scripts, name.upper())) for name in _SCRIPTS}
        self._asked = False
        self._closed = False

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Any], timeout: float | None = None) -> Any:
        """The result of a script, one of `_scripts` in lower case.

        Raises:
            BackendUnavailable, BackendRefused: it is not known whether the script ran; it did not run.
        """
        return await self._ask(self._scripts[script](keys, args), timeout)

    async def command(self, *args: Any, timeout: float | None = None) -> Any:
        """The answer to a command; errors as for `run`."""
        return await self._ask(self._client.execute_command(*args), timeout)

    async def commands(self, commands: Sequence[Sequence[Any]], timeout: float) -> list[Any]:
        """The answers to commands that are sent together. One that the server refuses has its error in its place.

        Raises:
            BackendUnavailable, BackendRefused: as for `run`, of all.
        """
        return [self._told(answer) for answer in await self._pipeline(commands, timeout)]

    async def run_all(
        self, script: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]], timeout: float
    ) -> list[Any]:
        """The results of a script called several times, each with its keys and arguments; as for `commands`."""
        prepared = self._scripts[script]
        commands = [("EVALSHA", prepared.sha, len(keys), *keys, *args) for keys, args in calls]
        end = asyncio.get_running_loop().time() + timeout
        answers = await self._pipeline(commands, timeout)
        if any(isinstance(answer, redis_errors.NoScriptError) for answer in answers):
            for place, (keys, args) in enumerate(calls):  # the first time, and after the server lost its scripts
                if isinstance(answers[place], redis_errors.NoScriptError):
                    answers[place] = await self._alone(script, keys, args, end - asyncio.get_running_loop().time())
        return [self._told(answer) for answer in answers]

    async def _alone(self, script: str, keys: Sequence[str], args: Sequence[Any], timeout: float) -> Any:
        try:
            return await self.run(script, keys, args, timeout)
        except ConnectionFailed as error:
            return error

    async def _pipeline(self, commands: Sequence[Sequence[Any]], timeout: float) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await self._ask(pipeline.execute(raise_on_error=False), timeout)
        if any(isinstance(answer, redis_errors.ResponseError) and is_read_only(answer) for answer in answers):
            await self._move_on()
        return answers

    def _told(self, answer: Any) -> Any:
        if not isinstance(answer, redis_errors.ResponseError):
            return answer
        error = refusal(answer, str(self.addresses))
        error.__cause__ = answer
        return error

    async def _ask(self, asking: Any, timeout: float | None) -> Any:
        with mapped(str(self.addresses)):
            try:
                async with asyncio.timeout(self._timeout if timeout is None else timeout):
                    return await asking
            except redis_errors.ResponseError as error:
                if is_read_only(error):
                    await self._move_on()
                raise
            finally:
                if self._closed:  # the pool made this connection after it was closed
                    await self._pool.disconnect()

    async def _move_on(self) -> None:
        """The server became a replica: find the one that takes writes among the other addresses."""
        self.addresses.leave(self.addresses.current)
        await self._pool.disconnect(inuse_connections=False)

    def connection(self) -> Line:
        """A connection outside the pool, for who waits on it; not connected yet."""
        return Line(self._class(**self._settings), self.addresses, self._timeout + LONGEST_BLOCK)

    async def look(self) -> None:
        """Say in the log, once, if the server keeps nothing on disk."""
        if self._asked:
            return
        self._asked = True
        with suppress(Exception):  # a user may not be allowed to ask, and it is no more than a hint
            facts = await self.command("INFO", "persistence")
            if not int(facts.get("aof_enabled", 1)):
                log(
                    self._logger,
                    logging.WARNING,
                    "redis keeps no append-only file, and loses messages when it restarts",
                    address=str(self.addresses),
                )

    async def aclose(self) -> None:
        """Close the pool."""
        self._closed = True
        with suppress(redis_errors.RedisError, OSError):
            await self._pool.aclose()


class Line:
    """A connection for one task that waits on it. All errors are pymicro's own; after one it is closed.

    Args:
        connection: not connected yet.
        addresses: for errors.
        timeout: seconds for each step.
    """

    def __init__(self, connection: Connection, addresses: Addresses, timeout: float) -> None:
        self._connection = connection
        self._addresses = addresses
        self._timeout = timeout

    async def open(self) -> None:
        """Connect, if it is not connected."""
        with mapped(str(self._addresses)):
            await cast(Any, self._connection).connect()

    async def send(self, *args: Any) -> None:
        """Send a command."""
        with mapped(str(self._addresses)):
            async with asyncio.timeout(self._timeout):
                await self._connection.send_command(*args)

    async def read(self, timeout: float | None = None) -> Any:
        """The next answer. With a time-out, None if there is none so far; else the link's own, which is an error.

        Raises:
            BackendUnavailable: the connection ended, or there was no answer in time.
        """
        with mapped(str(self._addresses)):
            if not self._connection.is_connected:
                raise BackendUnavailable("the connection is closed")
            if timeout is not None:
                return await self._connection.read_response(timeout=timeout)
            async with asyncio.timeout(self._timeout):
                return await self._connection.read_response()

    async def ask(self, *args: Any) -> Any:
        """The answer to a command."""
        await self.send(*args)
        return await self.read()

    async def aclose(self) -> None:
        """Disconnect at once."""
        with suppress(redis_errors.RedisError, OSError):
            await self._connection.disconnect(nowait=True)
