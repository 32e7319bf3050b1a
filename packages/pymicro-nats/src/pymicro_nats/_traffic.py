"""What goes over one connection: what is written, what is asked, what is subscribed to, and who gets what comes.

The driver does the handshake and reads. What comes often is written without it, and goes past its queues: `_driver`
says why.
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
from pymicro_nats._reader import Tap

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


class Traffic:
    """A connection, as those see it who send and receive. `Session` makes it and ends it.

    Its methods wait for ever, without `within`: who calls them bounds the time.

    Args:
        address: the server, `host:port`.
        who: logs in there, for errors.
        logger: for what the server complains of.

    Attributes:
        lost: set when the connection is gone.
        reason: why it is gone.
        congested: whether the server did not read what `write` sent; then `room` waits for it.
    """

    def __init__(self, address: str, who: str, logger: logging.Logger) -> None:
        self.address = address
        self.lost = asyncio.Event()
        self.congested = False
        self.reason: PymicroError = BackendUnavailable("the connection ended", address)
        self._who = who
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._client: Any = Client()
        self._taps: dict[int, Tap] = {}
        # writing
        self._out: list[bytes] = []
        self._out_size = 0
        self._unconfirmed: list[asyncio.Future[None]] = []
        self._confirming: list[asyncio.Future[None]] = []
        # questions
        self._inbox = ""
        self._tokens = itertools.count(1)
        self._waiting: dict[bytes, tuple[str, asyncio.Future[Any]]] = {}
        self._gathering: dict[bytes, Callable[[Any], None]] = {}
        #: The number of the last refusal of a subject, and how many there were of all.
        self._refusals: dict[tuple[str, str], int] = {}
        self._refused = 0

    async def _begin(self) -> None:
        """The driver is connected: hear answers from now on."""
        _driver.tap(self._client, self._taps)
        self._inbox = self._client.new_inbox()
        await self._subscribe(f"{self._inbox}.*", "", _never, lambda _: self._answered)

    def _abandon(self, reason: PymicroError) -> None:
        """Nothing comes any more for who waits."""
        waiting = [future for _, future in self._waiting.values()]
        for future in (*waiting, *self._unconfirmed, *self._confirming):
            _fail(future, reason)

    # writing

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message."""
        most: int = self._client.max_payload
        return most

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
            raise _errors.mapped(error, self.address, self._who) from error
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

    async def _bounded(self, future: asyncio.Future[T], within: Within | None) -> T:
        """Wait for what this session completes. Costs less than `asyncio.timeout`, which cancels the task."""
        if within is None:
            return await future
        timer = self._loop.call_later(within[0], self._late, future, within)
        try:
            return await future
        except BaseException:
            look_at(future)
            raise
        finally:
            timer.cancel()

    def _late(self, future: asyncio.Future[Any], within: Within) -> None:
        seconds, what = within
        _fail(future, BackendUnavailable(f"{what}: no answer from NATS within {seconds:g} s", self.address))

    # questions

    def new_inbox(self) -> str:
        """A subject for answers that nobody else has."""
        inbox: str = self._client.new_inbox()
        return inbox

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
            look_at(future)

    @contextmanager
    def gathering(self, take: Callable[[Any], None]) -> Iterator[str]:
        """A subject for any number of answers: `take` gets each of the driver's messages while the block runs."""
        token = b"%d" % next(self._tokens)
        self._gathering[token] = take
        try:
            yield f"{self._inbox}.{token.decode()}"
        finally:
            del self._gathering[token]

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
            self._report(error)

    def _report(self, error: Exception) -> None:
        log(self._logger, logging.ERROR, "nats message failed", exc_info=error, error=repr(error))

    # subscriptions

    async def tap(self, subject: str, function: Tap) -> Any:
        """Subscribe, and have messages handed to `function` as they arrive; the driver's subscription.

        Raises:
            BackendUnavailable, BackendRefused: as for `publish`.
        """
        return await self._subscribe(subject, "", _never, lambda _: function)

    async def subscribe(self, subject: str, queue: str, callback: Callback) -> Any:
        """Subscribe; returns the driver's subscription when the server knows.

        Raises:
            BackendUnavailable, BackendRefused: as for `publish`.
        """
        return await self._subscribe(subject, queue, callback, None)

    async def take(self, subject: str, queue: str, function: Callable[[Arrived], None]) -> Any:
        """Subscribe with a function that does not wait, for many messages; as `subscribe`."""
        client = self._client

        def tap(number: int) -> Tap:
            def tapped(subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
                try:
                    function(Arrived(client, number, subject, reply, data, block))
                except Exception as error:
                    self._report(error)

            return tapped

        return await self._subscribe(subject, queue, _never, tap)

    async def _subscribe(self, subject: str, queue: str, callback: Callback, tap: Callable[[int], Tap] | None) -> Any:
        before = self._refused
        number = _driver.next_number(self._client)
        if tap is not None:
            self._taps[number] = tap(number)  # before the driver waits: it may have sent the command by then
        subscription: Any = None
        try:
            async with _driver.cancellable():
                subscription = await self._client.subscribe(subject, queue=queue, cb=callback)
            await self.confirm()
            self._check("subscription", subject, before)
        except BaseException as error:
            self._taps.pop(number, None)
            if subscription is not None:
                await self.forget(subscription)
            if isinstance(error, PymicroError) or not isinstance(error, Exception):
                raise
            raise _errors.mapped(error, self.address, self._who) from error
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

    # what the server refuses

    def _was_refused(self, verb: str, subject: str) -> None:
        self._refused += 1
        before = self._refusals.pop((verb, subject), 0)
        self._refusals[verb, subject] = self._refused
        if not before:
            log(self._logger, logging.WARNING, "nats permission denied", user=self._who, to=f"{verb} {subject}")
        if len(self._refusals) > _REMEMBERED:
            self._refusals.pop(next(iter(self._refusals)))
        denial = self._denial(verb, subject)
        for wanted, future in list(self._waiting.values()):
            if verb == "publish" and wanted.lower() == subject:
                _fail(future, denial)
        if subject.startswith(self._inbox.lower()):
            for future in (*self._unconfirmed, *self._confirming):
                _fail(future, denial)

    def _check(self, verb: str, subject: str, before: int) -> None:
        """Raise if the server refused the subject since there were `before` refusals."""
        if self._refusals.get((verb, subject.lower()), 0) > before:
            raise self._denial(verb, subject)

    def _denial(self, verb: str, subject: str) -> BackendRefused:
        what = "publish to" if verb == "publish" else "subscribe to"
        return BackendRefused(f"{self._who} may not {what} the subject {subject!r}", self.address)


def unanswered(message: Any) -> bool:
    """Whether this answer is the server's own: nobody listens to the subject."""
    return not message.data and bool(message.headers) and message.headers.get("Status") == "503"


async def _never(_: Any) -> None:
    """The messages of a subscription with a tap do not come here."""


def _fail(future: asyncio.Future[Any], error: PymicroError) -> None:
    if not future.done():
        future.set_exception(error)


def look_at(future: asyncio.Future[Any]) -> None:
    """Its error is of no interest: asyncio shall not complain that nobody looked at it."""
    if future.done() and not future.cancelled():
        future.exception()
