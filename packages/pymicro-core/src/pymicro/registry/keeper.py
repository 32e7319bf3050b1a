"""Keeping registrations at a server: the task and the state that registry plugins share.

A plugin says in a `Keeper` how one registration is written, renewed and removed. When that is done, and what becomes of
failures, cancellation and closing, is the same for all.
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from pymicro.errors import BackendRefused, BackendUnavailable, Closed, UsageError
from pymicro.plugins import Build
from pymicro.plugins.toolkit import backoff, detached, end_task, log, start_task
from pymicro.record import ServiceRecord
from pymicro.registry._contract import Registration, RegistrationState

__all__ = ["RENEWALS", "TICK", "Keeper", "KeptRegistration", "check_update"]

#: A registration is renewed so many times within its TTL.
RENEWALS: Final = 3

#: Seconds by which a timer may fire early, since clocks round.
TICK: Final = 1e-6

#: Registrations that are looked after at the same time, unless the plugin says otherwise.
AT_ONCE: Final = 100

#: Seconds before the first and before later attempts after failures, at most.
_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 1.0

_NOW: Final = -math.inf

Values = TypeVar("Values", bound=Mapping[Any, Any])


def check_update(before: ServiceRecord, after: ServiceRecord) -> None:
    """Raise `UsageError` unless `after` has the name, the version and the node ids of `before`."""
    if _identity(before) != _identity(after):
        raise UsageError("an update keeps name, version and node ids: register what is new, then close this one")


def _identity(service: ServiceRecord) -> tuple[str, str, set[str]]:
    return service.name, service.version, {node.id for node in service.nodes}


class KeptRegistration(Registration, Generic[Values]):
    """What one `register` call holds. Plugins derive from it and add what they have to know of it.

    Args:
        service: the record.
        ttl: seconds; 0 for no end.

    Raises:
        ConfigurationError: `write` cannot write the record.

    Attributes:
        service, ttl: as given; `service` changes with `update`.
        values: what `write` made of the record. Another object after each update.
        failures: attempts that failed in a row.
    """

    def __init__(self, service: ServiceRecord, ttl: float) -> None:
        self.service, self.ttl = service, ttl
        self.values = self.write(service)
        self.failures = 0
        self._closed = False
        self._known = False
        # the keeper's
        self._keeper: Keeper[Any] | None = None
        self._due = _NOW
        self._waiting: list[asyncio.Future[None]] = []

    @abstractmethod
    def write(self, service: ServiceRecord) -> Values:
        """What the server is to have for this record.

        Raises:
            ConfigurationError: it cannot be written.
        """

    @property
    def state(self) -> RegistrationState:
        """See `Registration.state`."""
        if self._closed:
            return "closed"
        return "registered" if self._known and self.error is None else "pending"

    async def update(self, service: ServiceRecord) -> None:
        """Have what is in `service` instead. See `Registration.update`.

        Raises:
            Closed: the registration was closed.
            UsageError: the name, the version or the nodes are others.
            ConfigurationError: the record cannot be written.
        """
        if self._closed:
            raise Closed(f"the registration of {self.service.name!r} was closed: register it again")
        values = self.write(service)
        check_update(self.service, service)
        self.service, self.values = service, values
        assert self._keeper is not None, "it is registered before anybody has it"
        await self._keeper.attend(self)

    async def aclose(self) -> None:
        """Remove it. See `Registration.aclose`."""
        if not self._closed:
            assert self._keeper is not None
            self._mark_closed()
            await self._keeper.attend(self)

    def succeeded(self) -> None:
        """The last attempt did what was to be done. To be overridden by who has to know, and called then."""
        self._known, self.error, self.failures = True, None, 0

    def failed(self, error: Exception) -> None:
        """The last attempt did not. To be overridden by who has to know, and called then."""
        self.failures += 1
        if not self._closed:
            self.error = detached(error)

    def _mark_closed(self) -> None:
        """It is closed from now on, whatever becomes of it at the server."""
        self._closed, self.error = True, None

    def _attempted(self) -> list[asyncio.Future[None]]:
        """Those who wait for an attempt, who wait no more after this one."""
        waiting, self._waiting = self._waiting, []
        return waiting


R = TypeVar("R", bound=KeptRegistration[Any])


class Keeper(ABC, Generic[R]):
    """The task that keeps the registrations of one registry.

    It is the only one that changes the server, and does one thing after the other for each registration, so that what
    is cancelled or closed meanwhile is taken back in order. Registrations are attended to side by side. After a failure
    the next attempt comes with back-off, after at most a second. The task begins with the first registration.

    Args:
        build: clock, logger and time-out.
        server: what kind of server it is, for tasks, messages and log lines, such as `etcd`.
        at_once: registrations that are attended to at the same time.
    """

    def __init__(self, build: Build, server: str, *, at_once: int = AT_ONCE) -> None:
        self._clock, self._logger, self._timeout = build.clock, build.logger, build.timeout
        self._name, self._at_once = server, at_once
        self._registrations: dict[R, None] = {}
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # what plugins say

    @abstractmethod
    async def _keep(self, registration: R) -> None:
        """See to it that the server has `registration.values`, with the whole TTL before them.

        Called again and again: after `_step`, after an update, after a failure, after `hurry`.

        Raises:
            BackendUnavailable: not now.
            BackendRefused: the server says no. Told to who registers; attempted again afterwards.
        """

    @abstractmethod
    async def _remove(self, registration: R) -> None:
        """See to it that the server has nothing of it any more.

        Raises:
            BackendUnavailable: not now. Attempted again if there is no TTL, after which the server forgets it anyway.
            BackendRefused: the server says no. Not attempted again.
        """

    def _step(self, registration: R) -> float:
        """Seconds to the next look at a registration. Unless overridden, a third of its TTL; without one, no look."""
        return registration.ttl / RENEWALS if registration.ttl else math.inf

    async def _let_go(self, registration: R) -> None:
        """End what this process does for a registration besides, such as following it.

        Called before `_remove`, and when the keeper is closed; maybe more than once. Unless overridden, nothing.
        """

    # what they use

    async def register(self, registration: R) -> R:
        """Keep a registration from now on. See `Registry.register`.

        Raises:
            BackendRefused: the server says no; it is not kept.
        """
        registration._keeper = self
        self._registrations[registration] = None
        try:
            await self.attend(registration)
            if isinstance(registration.error, BackendRefused):
                raise registration.error
        except BaseException:
            self._begin_closing([registration])
            raise
        return registration

    async def attend(self, registration: R) -> None:
        """Look after a registration now. Returns after an attempt, or after the time-out."""
        await self._attended([self._ask(registration)])
        if registration.state == "pending" and registration.error is None:
            registration.error = BackendUnavailable(f"{self._name} has not answered within {self._timeout:g} s")

    def hurry(self, registration: R) -> None:
        """Look after a registration soon, without waiting for it."""
        registration._due = _NOW
        self._look.set()

    async def aclose(self) -> None:
        """Close all registrations, in bounded time, and end the task."""
        open_ones = list(self._registrations)
        await self._attended(self._begin_closing(open_ones))
        await end_task(self._task)
        self._task = None
        for registration in open_ones:
            await self._let_go(registration)

    # the task

    def _begin_closing(self, registrations: Sequence[R]) -> list[asyncio.Future[None]]:
        for registration in registrations:
            registration._mark_closed()
        return [self._ask(registration) for registration in registrations]

    def _ask(self, registration: R) -> asyncio.Future[None]:
        attempt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if registration not in self._registrations:
            attempt.set_result(None)
            return attempt
        registration._waiting.append(attempt)
        self.hurry(registration)
        if self._task is None:
            self._task = start_task(self._run(), f"{self._name} registrations")
        return attempt

    async def _attended(self, attempts: list[asyncio.Future[None]]) -> None:
        if attempts and self._task is not None and not self._task.done():
            # Not gather: it would wait for the rest after a cancellation, and this must end with the time-out.
            await asyncio.wait(attempts, timeout=self._timeout)

    async def _run(self) -> None:
        while True:
            await self._wait()
            now = self._clock.monotonic() + TICK
            due = sorted((each for each in self._registrations if each._due <= now), key=lambda each: each._due)
            # Together, since in a busy loop each answer waits for its turn; later ones wait for room.
            async with asyncio.TaskGroup() as attempts:
                for registration in due[: self._at_once]:
                    attempts.create_task(self._round(registration), name=f"{self._name} registration")

    async def _wait(self) -> None:
        """Wait until something is due."""
        while (left := self._due() - self._clock.monotonic()) > TICK:
            self._look.clear()
            timer = None if math.isinf(left) else self._clock.call_later(left, self._look.set)
            try:
                await self._look.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def _due(self) -> float:
        return min((each._due for each in self._registrations), default=math.inf)

    async def _round(self, registration: R) -> None:
        """One attempt for one registration."""
        waiting = registration._attempted()
        registration._due = self._clock.monotonic() + self._step(registration)
        try:
            if registration.state == "closed":
                await self._forget(registration)
            else:
                await self._keep(registration)
        except Exception as error:  # whatever it is, the others must be kept
            self._failed(registration, error)
        else:
            registration.succeeded()
        if registration not in self._registrations:
            waiting += registration._attempted()  # nothing will be attempted any more
        for attempt in waiting:
            attempt.set_result(None)

    async def _forget(self, registration: R) -> None:
        await self._let_go(registration)
        try:
            await self._remove(registration)
        except BackendUnavailable:
            if not registration.ttl:
                raise  # nobody else forgets it
        except BackendRefused:
            del self._registrations[registration]
            raise
        del self._registrations[registration]

    def _failed(self, registration: R, error: Exception) -> None:
        if not isinstance(error, BackendUnavailable) and not registration.failures:
            service = registration.service.name
            log(self._logger, logging.ERROR, f"{self._name} refused", service=service, error=repr(error))
        registration.failed(error)
        if registration._due != _NOW:
            wait = backoff(registration.failures, first=_FIRST_RETRY, longest=_LONGEST_RETRY)
            registration._due = self._clock.monotonic() + wait
