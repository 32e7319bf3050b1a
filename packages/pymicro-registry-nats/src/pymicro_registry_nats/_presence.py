"""What this process registered: it is announced, and answers when it is asked for."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from functools import partial
from typing import Any, Final

from pymicro.errors import BackendRefused, BackendUnavailable, Closed, ConfigurationError, PymicroError, TooLarge
from pymicro.plugins import Build
from pymicro.plugins.toolkit import log
from pymicro.registry import Registration, RegistrationState, ServiceRecord
from pymicro.registry.keeper import check_update
from pymicro_nats.connection import Link, Session
from pymicro_registry_nats import _wire
from pymicro_registry_nats._agent import Agent
from pymicro_registry_nats._options import NatsRegistryOptions

#: Seconds for telling others that a service is gone.
_LEAVE_TIME: Final = 1.0


class NatsRegistration(Registration):
    """A record that this process answers for.

    Attributes:
        service, payload: the record, and its JSON.
        ttl: as it was registered.
        due: when it is announced again.
    """

    def __init__(self, presence: Presence, service: ServiceRecord, ttl: float) -> None:
        self._presence = presence
        self.service, self.payload = service, _wire.record(service)
        self.ttl = ttl
        self.due = -math.inf
        self.closed = False
        self.announced = False
        self._attempts: list[asyncio.Future[None]] = []

    @property
    def state(self) -> RegistrationState:
        if self.closed:
            return "closed"
        return "registered" if self.announced and self.error is None else "pending"

    async def update(self, service: ServiceRecord) -> None:
        if self.closed:
            raise Closed(f"the registration of {self.service.name!r} was closed")
        payload = _wire.record(service)
        check_update(self.service, service)
        self.service, self.payload = service, payload
        await self.attempt()

    async def attempt(self) -> None:
        """Announce it, and return after the first attempt."""
        attempt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._attempts.append(attempt)
        self.due = -math.inf
        self._presence.wake()
        await attempt

    def attempted(self, error: PymicroError | None) -> None:
        """An attempt is over: others know of it, or `error` says why not."""
        self.error = error
        self.announced = error is None
        self.end_attempts()

    def end_attempts(self) -> None:
        """Wake who waits for one."""
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            if not attempt.done():
                attempt.set_result(None)

    async def aclose(self) -> None:
        if self.closed:
            return
        self.closed, self.error = True, None
        await self._presence.remove(self)


class Presence(Agent):
    """Announces registrations, once on each connection and three times in their TTL, and answers questions.

    NATS keeps nothing: who is asked and does not answer is not there.
    """

    def __init__(self, link: Link, options: NatsRegistryOptions, build: Build) -> None:
        super().__init__(link, build, "nats registrations")
        self._options = options
        self._registrations: dict[NatsRegistration, None] = {}
        self._answering = False
        self._refused = False

    async def add(self, service: ServiceRecord, ttl: float) -> NatsRegistration:
        """Register; see `Registry.register`."""
        registration = NatsRegistration(self, service, ttl)
        self._registrations[registration] = None
        try:
            await registration.attempt()
            if isinstance(registration.error, BackendRefused | ConfigurationError):
                raise registration.error
        except BaseException:
            await registration.aclose()
            raise
        return registration

    async def remove(self, registration: NatsRegistration) -> None:
        """Answer for it no more, and tell others."""
        self._registrations.pop(registration, None)
        registration.end_attempts()
        session = self._session
        if session is None or not registration.announced:
            return
        with suppress(TimeoutError, PymicroError):  # who asks gets no answer in any case
            async with asyncio.timeout(_LEAVE_TIME):
                await session.publish(self._options.watch_topic, _wire.delete(registration.service))

    async def close_all(self) -> None:
        """Close every registration."""
        await asyncio.gather(*(registration.aclose() for registration in list(self._registrations)))
        await self.aclose()

    # the agent's part

    async def _begin(self, session: Session) -> None:
        self._answering = False
        for registration in self._registrations:
            registration.due = -math.inf

    async def _turn(self, session: Session) -> float | None:
        if self._registrations and not self._answering:
            await session.subscribe(self._options.query_topic, "", partial(self._asked, session))
            self._answering = True
        now = self._clock.monotonic()
        for registration in list(self._registrations):
            if registration.due <= now:
                await self._announce(session, registration)
        if self._refused:
            self._refused = False
            log(self._build.logger, logging.INFO, "nats registry works again")
        due = min((registration.due for registration in self._registrations), default=math.inf)
        return None if due == math.inf else due

    async def _announce(self, session: Session, registration: NatsRegistration) -> None:
        registration.due = self._clock.monotonic() + (registration.ttl / 3 or math.inf)
        payload = registration.payload
        # From here to `publish` nothing waits, so nobody hears that it is there after that it is gone.
        registration.announced = True
        try:
            await session.publish(self._options.watch_topic, _wire.create(payload))
        except TooLarge as error:
            refusal = ConfigurationError(f"the record of {registration.service.name!r} is too large: {error.detail}")
            registration.attempted(refusal)
            return
        except BaseException:
            registration.announced = False
            registration.due = -math.inf
            raise
        if registration.payload is payload:
            registration.attempted(None)

    def _failed(self, error: PymicroError) -> None:
        if isinstance(error, BackendRefused) and not self._refused:
            self._refused = True
            log(self._build.logger, logging.ERROR, "nats registry refused", error=str(error))
        for registration in list(self._registrations):
            registration.attempted(error)

    # questions

    async def _asked(self, session: Session, message: Any) -> None:
        if not message.reply:
            return
        action, service = _wire.read(message.data)
        found: list[NatsRegistration] = []
        if action == _wire.GET and service is not None:
            found = [each for each in self._registrations if each.service.name == service.name]
        elif action == _wire.LIST:
            found = list({each.service.name: each for each in self._registrations}.values())
        with suppress(BackendUnavailable, TooLarge):
            for registration in found:
                await session.send(message.reply, registration.payload)
