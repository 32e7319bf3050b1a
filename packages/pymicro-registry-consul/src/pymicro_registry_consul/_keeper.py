"""Keeps registrations: passes the checks of this process, and registers again what the agent does not have."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from pymicro.errors import BackendUnavailable, ConnectionFailed
from pymicro.plugins import Build
from pymicro.record import ServiceRecord
from pymicro.registry.keeper import RENEWALS, TICK, Keeper, KeptRegistration
from pymicro_registry_consul._client import AT_ONCE, ConsulServer
from pymicro_registry_consul._session import Session
from pymicro_registry_consul._wire import write

_Bodies = dict[str, dict[str, Any]]


class ConsulRegistration(KeptRegistration[_Bodies]):
    """What one `register` call holds: a service of the agent for each node.

    Attributes:
        held: by address of an agent, what it may have: one for what is known, more after attempts that failed.
        renewal: when its checks are to be passed again, on the clock.
    """

    def __init__(self, service: ServiceRecord, ttl: float) -> None:
        super().__init__(service, ttl)
        self.held: dict[str, list[_Bodies]] = {}
        self.renewal = -math.inf

    def write(self, service: ServiceRecord) -> _Bodies:
        """What the agent is to have, by node id."""
        return write(service, self.ttl)

    def failed(self, error: Exception) -> None:
        """See `KeptRegistration.failed`."""
        super().failed(error)
        self.renewal = -math.inf  # nobody knows how long the agent was away


class ConsulKeeper(Keeper[ConsulRegistration]):
    """The task that keeps the registrations of one registry.

    Args:
        session: whom to ask.
        build: clock, logger and time-out.
        heartbeat: seconds between two looks whether the agent still has a registration.
    """

    def __init__(self, session: Session, build: Build, heartbeat: float) -> None:
        super().__init__(build, "consul", at_once=AT_ONCE)
        self._session, self._heartbeat = session, heartbeat

    def _step(self, registration: ConsulRegistration) -> float:
        return min(self._heartbeat, super()._step(registration))

    async def _keep(self, registration: ConsulRegistration) -> None:
        await self._session.call(lambda server: self._keep_at(registration, server))

    async def _keep_at(self, registration: ConsulRegistration, server: ConsulServer) -> None:
        """See to it that the agent has it, with passing checks."""
        begun, bodies = self._clock.monotonic(), registration.values
        renew = bool(registration.ttl) and begun + TICK >= registration.renewal
        held = registration.held.setdefault(server.address, [])
        known = len(held) == 1 and held[0] is bodies
        if not known:
            held[:] = [*held[-2:], bodies]
        for id, body in bodies.items():
            if known and await (server.renew(id) if renew else server.is_registered(id)):
                continue
            await server.register(body)
            # The agent kept the status that it had before, so it may be critical.
            if registration.ttl and not await server.renew(id):
                raise BackendUnavailable("the check was gone as soon as it was registered", server.address)
        held[:] = [bodies]
        if renew or not known:
            registration.renewal = begun + registration.ttl / RENEWALS

    async def _remove(self, registration: ConsulRegistration) -> None:
        await self._session.call(lambda server: self._remove_at(registration, server))
        for address in list(registration.held):  # agents that were asked before this one
            with suppress(ConnectionFailed):
                await self._session.elsewhere(address, lambda server: self._remove_at(registration, server))

    async def _remove_at(self, registration: ConsulRegistration, server: ConsulServer) -> None:
        held = registration.held.get(server.address, [])
        for id in registration.values:
            found = await server.registered(id) if held else None
            # What another process registered under the id stays.
            if found is not None and any(found.is_what(bodies[id]) for bodies in held):
                await server.deregister(id)
        registration.held.pop(server.address, None)
