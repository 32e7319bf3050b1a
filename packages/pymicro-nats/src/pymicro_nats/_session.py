"""One connection to one NATS server, from its handshake to its end. `_link` makes the next one.

The driver does the protocol and is not let reconnect: a new connection gets the certificates that are on disk, tries
the addresses at our own pace, and whoever waits for an answer on the old one hears at once that it is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import msgspec
from nats.aio.client import Client

from pymicro.errors import BackendRefused, BackendUnavailable, PymicroError
from pymicro.plugins.toolkit import log
from pymicro_nats import _commands, _driver, _errors
from pymicro_nats._login import Login

T = TypeVar("T")

#: Takes one of the driver's messages.
Callback = Callable[[Any], Coroutine[Any, Any, None]]

#: Seconds that something may take, and what to call it in the error.
Within = tuple[float, str]

#: Bytes that may wait for the server to read them; more wait for it, too.
_UNSENT: Final = 4 * 1024**2

#: Bytes that are written together at most.
_GATHERED: Final = 64 * 1024

#: Subjects for which refusals are remembered.
_REMEMBERED: Final = 1024

#: The driver's own bound of each step of connecting; the caller bounds all of it.
_FOR_EVER: Final = 86400.0

#: Seconds for tasks to end that were cancelled.
_CLOSE_TIME: Final = 1.0


class Arrived(msgspec.Struct, gc=False):
    """A message as it came, which costs less than the driver's.

    Attributes:
        client, number: the driver's client, and its subscription.
        subject, reply, data: as in the driver's message.
        block: headers as they were sent; None for none.
    """

    client: Any
    number: int
    subject: bytes
    reply: bytes
    data: bytes
    block: bytes | None

    def native(self) -> Any:
        """The driver's message."""
        return _driver.message(self.client, self.number, self.subject, self.reply, self.data, self.block)


class Session:
    """An open connection. Its methods wait for ever, without `within`: who calls them bounds the time.

    Args:
        address: the server, `host:port`.
        login: how to log in there.
        inbox_prefix: subject under which the server may answer.
        ping_interval: seconds between two questions whether the server is there, and for each answer.
        name: of this client, for the server's monitoring.
        logger: for what the server complains of.

    Attributes:
        lost: set when the connection is gone.
        reason: why it is gone.
        congested: whether the server did not read what `write` sent; then `room` waits for it.
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
        self.address = address
        self.lost = asyncio.Event()
        self.congested = False
        self.reason: PymicroError = BackendUnavailable("the connection ended", address)
        self._login = login
        self._inbox_prefix = inbox_prefix
        self._ping_interval = ping_interval
        self._name = name
        self._logger = logger
        self._client: Any = Client()
        self._inbox = ""
        self._tokens = itertools.count(1)
        self._waiting: dict[bytes, tuple[str, asyncio.Future[Any]]] = {}
        self._gathering: dict[bytes, Callable[[Any], None]] = {}
        self._taps: dict[int, _driver.Tap] = {}
        self._out: list[bytes] = []
        self._out_size = 0
        self._loop = asyncio.get_running_loop()
        self._unconfirmed: list[asyncio.Future[None]] = []
        self._confirming: list[asyncio.Future[None]] = []
        #: The number of the last refusal of a subject, and how many there were of all.
        self._refusals: dict[tuple[str, str], int] = {}
        self._refused = 0
        self._watcher: asyncio.Task[None] | None = None
        self._lost_hooks: dict[Callable[[], None], None] = {}

    @property
    def discovered(self) -> list[str]:
        """Addresses of the other servers of a cluster, as this one told them."""
        return [f"{uri.hostname}:{uri.port}" for uri in self._client.discovered_servers]

    # life cycle

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
            _driver.tap(self._client, self._taps)
            self._inbox = self._client.new_inbox()
            answers = await self._client.subscribe(f"{self._inbox}.*", cb=_never)
            self._taps[_driver.number(answers)] = self._answered
            await self.confirm()
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
        waiting = [future for _, future in self._waiting.values()]
        for future in (*waiting, *self._unconfirmed, *self._confirming):
            _fail(future, reason)
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

    # what the driver tells

    async def _hear(self, error: Exception) -> None:
        if not self._inbox:
            raise error  # while it connects: the driver would try again, for minutes
        refused = _errors.violation(error)
        if refused is None:
            if not _errors.is_driver(error):
                log(self._logger, logging.ERROR, "nats callback failed", exc_info=error, error=repr(error))
            return
        self._refused += 1
        before = self._refusals.pop(refused, 0)
        self._refusals[refused] = self._refused
        if not before:
            log(self._logger, logging.WARNING, "nats permission denied", user=self._login.who, to=" ".join(refused))
        if len(self._refusals) > _REMEMBERED:
            self._refusals.pop(next(iter(self._refusals)))
        verb, subject = refused
        denial = self._denial(verb, subject)
        for wanted, future in list(self._waiting.values()):
            if verb == "publish" and wanted.lower() == subject:
                _fail(future, denial)
        if subject.startswith(self._inbox.lower()):
            for future in (*self._unconfirmed, *self._confirming):
                _fail(future, denial)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """One of the driver's tasks ended, so the connection has."""
        _look_at(task)
        error = self._client.last_error
        self._end(_errors.mapped(error, self.address, self._login.who) if error is not None else self.reason)

    def _denial(self, verb: str, subject: str) -> BackendRefused:
        what = "publish to" if verb == "publish" else "subscribe to"
        return BackendRefused(f"{self._login.who} may not {what} the subject {subject!r}", self.address)

    # what others ask

    async def publish(self, subject: str, payload: bytes, within: Within | None = None) -> None:
        """Publish; returns when the server has it.

        Raises:
            BackendUnavailable: not known to have arrived.
            BackendRefused: no permission.
            TooLarge: over the server's limit.
        """
        before = self._refused
        if self.congested:
            await self.room()
        self.put(subject, payload)
        await self._bounded(self._confirmation(), within)
        if self._refused != before:
            self._check("publish", subject, before)

    async def send(
        self, subject: str, payload: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Put it on its way; waits only for a server that does not read.

        Raises:
            BackendUnavailable, TooLarge: as for `publish`.
        """
        if self.congested:
            await self.room()
        self.put(subject, payload, reply=reply, headers=headers)

    def put(self, subject: str, payload: bytes, *, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """As `send`, but do not wait."""
        if self.lost.is_set():
            raise self.reason
        self.write(_commands.publish(subject, payload, reply, headers, self._client.max_payload))

    def _check(self, verb: str, subject: str, before: int) -> None:
        """Raise if the server refused the subject since there were `before` refusals."""
        if self._refusals.get((verb, subject.lower()), 0) > before:
            raise self._denial(verb, subject)

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, within: Within | None = None
    ) -> Any:
        """Send it and wait for the one answer, the driver's message.

        Raises:
            BackendUnavailable, BackendRefused, TooLarge: as for `publish`.
        """
        token = b"%d" % next(self._tokens)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[token] = subject, future
        try:
            await self.send(subject, payload, reply=f"{self._inbox}.{token.decode()}", headers=headers)
            return await self._bounded(future, within)
        finally:
            self._waiting.pop(token, None)
            _look_at(future)

    async def _bounded(self, future: asyncio.Future[T], within: Within | None) -> T:
        """Wait for what this session completes. Costs less than `asyncio.timeout`, which cancels the task."""
        if within is None:
            return await future
        timer = self._loop.call_later(within[0], self._late, future, within)
        try:
            return await future
        except BaseException:
            _look_at(future)
            raise
        finally:
            timer.cancel()

    def _late(self, future: asyncio.Future[Any], within: Within) -> None:
        seconds, what = within
        _fail(future, BackendUnavailable(f"{what}: no answer from NATS within {seconds:g} s", self.address))

    @contextmanager
    def gathering(self, take: Callable[[Any], None]) -> Iterator[str]:
        """A subject for any number of answers: `take` gets each of the driver's messages while the block runs."""
        token = b"%d" % next(self._tokens)
        self._gathering[token] = take
        try:
            yield f"{self._inbox}.{token.decode()}"
        finally:
            del self._gathering[token]

    # the short way, for who sends and receives much

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message."""
        most: int = self._client.max_payload
        return most

    async def tap(self, subject: str, function: _driver.Tap) -> Any:
        """Subscribe, and have messages handed to `function` as they arrive; the driver's subscription.

        Raises:
            BackendUnavailable, BackendRefused: as for `publish`.
        """
        return await self._subscribe(subject, "", _never, lambda _: function)

    def write(self, command: bytes) -> None:
        """Send a command of NATS's protocol with the others of this turn. What a lost connection is told is lost."""
        if not self._out:
            self._loop.call_soon(self._write_out)
        self._out.append(command)
        self._out_size += len(command)
        if self._out_size > _GATHERED:
            self._write_out()

    def _write_out(self) -> None:
        out, self._out, self._out_size = self._out, [], 0
        if out and not self.lost.is_set():
            self.congested = _driver.write(self._client, b"".join(out)) > _UNSENT

    async def room(self) -> None:
        """Wait while the server does not read.

        Raises:
            BackendUnavailable: the connection ended.
        """
        self._write_out()
        try:
            await _driver.drain(self._client)
        except Exception as error:
            raise _errors.mapped(error, self.address, self._login.who) from error
        self.congested = False
        if self.lost.is_set():
            raise self.reason

    async def written(self) -> None:
        """Return when the server has all that was written.

        Raises:
            BackendUnavailable: the connection ended.
        """
        self._write_out()
        await self.confirm()

    async def confirm(self, within: Within | None = None) -> None:
        """Return when the server has done all that was sent before.

        It is a message to ourselves, which the server handles after those before it; one serves all who wait. The
        driver's own `flush` overtakes what waits to be written.

        Raises:
            BackendUnavailable: not known to be done: no answer in time, or the connection ended.
        """
        await self._bounded(self._confirmation(), within)

    def _confirmation(self) -> asyncio.Future[None]:
        if self.lost.is_set():
            raise self.reason
        future: asyncio.Future[None] = self._loop.create_future()
        self._unconfirmed.append(future)
        if not self._confirming:
            self._echo()
        return future

    def _echo(self) -> None:
        self._confirming, self._unconfirmed = self._unconfirmed, []
        self.write(_commands.publish(f"{self._inbox}.echo", b"", "", None, 0))

    def _answered(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        token = subject[len(self._inbox) + 1 :]
        if token == b"echo":
            confirmed, self._confirming = self._confirming, []
            for each in confirmed:
                if not each.done():
                    each.set_result(None)
            if self._unconfirmed and not self.lost.is_set():
                self._echo()
            return
        take = self._gathering.get(token)
        _, future = self._waiting.get(token, ("", None))
        if take is not None:
            self._guarded(take, _driver.message(self._client, 0, subject, reply, data, headers))
        elif future is not None and not future.done():
            future.set_result(_driver.message(self._client, 0, subject, reply, data, headers))

    def _guarded(self, function: Callable[[Any], None], message: Any) -> None:
        """An error must not end the task that reads for all."""
        try:
            function(message)
        except Exception as error:
            log(self._logger, logging.ERROR, "nats message failed", exc_info=error, error=repr(error))

    def new_inbox(self) -> str:
        """A subject for answers that nobody else has."""
        inbox: str = self._client.new_inbox()
        return inbox

    async def subscribe(self, subject: str, queue: str, callback: Callback) -> Any:
        """Subscribe; returns the driver's subscription when the server knows.

        Raises:
            BackendUnavailable, BackendRefused: as for `publish`.
        """
        return await self._subscribe(subject, queue, callback, None)

    async def take(self, subject: str, queue: str, function: Callable[[Arrived], None]) -> Any:
        """Subscribe with a function that does not wait, for many messages; as `subscribe`."""
        client = self._client

        def tap(number: int) -> _driver.Tap:
            def tapped(subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
                self._guarded(function, Arrived(client, number, subject, reply, data, block))

            return tapped

        return await self._subscribe(subject, queue, _never, tap)

    async def _subscribe(
        self, subject: str, queue: str, callback: Callback, tap: Callable[[int], _driver.Tap] | None
    ) -> Any:
        before = self._refused
        try:
            subscription = await self._client.subscribe(subject, queue=queue, cb=callback)
        except Exception as error:
            raise _errors.mapped(error, self.address, self._login.who) from error
        if tap is not None:
            number = _driver.number(subscription)
            self._taps[number] = tap(number)
        try:
            await self.confirm()
            self._check("subscription", subject, before)
        except BaseException:
            await self.forget(subscription)
            raise
        return subscription

    async def release(self, subscription: Any) -> None:
        """Unsubscribe, after what is on its way here has arrived.

        Raises:
            BackendUnavailable: the connection ended.
        """
        if not self.lost.is_set():
            await _driver.stop(self._client, subscription)
            await self.confirm()
            await self.forget(subscription)

    async def forget(self, subscription: Any) -> None:
        """Unsubscribe at once. Never waits, and never fails."""
        self._taps.pop(_driver.number(subscription), None)
        with suppress(Exception):
            await subscription.unsubscribe()


def unanswered(message: Any) -> bool:
    """Whether this answer is the server's own: nobody listens to the subject."""
    return not message.data and bool(message.headers) and message.headers.get("Status") == "503"


async def _never(_: Any) -> None:
    """The messages of a subscription with a tap do not come here."""


def _fail(future: asyncio.Future[Any], error: PymicroError) -> None:
    if not future.done():
        future.set_exception(error)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Its error is of no interest: asyncio shall not complain that nobody looked at it."""
    if future.done() and not future.cancelled():
        future.exception()
