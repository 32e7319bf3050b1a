"""Asks once and collects the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pymicro.clock import Clock
from pymicro.errors import BackendUnavailable
from pymicro.registry import ServiceRecord
from pymicro_registry_mdns._known import MAX_KNOWN
from pymicro_registry_mdns._network import Network
from pymicro_registry_mdns._packets import Answer, Wire
from pymicro_registry_mdns._timing import wait_until

#: Seconds without a new answer after which the answers are taken to be complete. Go Micro waits 0.1 in any case.
SETTLE: Final = 0.03


class Querier:
    """Looks up services. Any number of lookups may run at once.

    Args:
        wire, network, clock: as of the registry.
        timeout: seconds until the first answer has to be there. The others have as long again.
    """

    def __init__(self, wire: Wire, network: Network, clock: Clock, timeout: float) -> None:
        self._wire, self._network, self._clock, self._timeout = wire, network, clock, timeout
        self._running: set[_Lookup] = set()

    def heard(self, answer: Answer) -> None:
        """Take what a peer says, asked or unasked."""
        for lookup in self._running:
            lookup.heard(answer)

    async def ask(self, service: str | None) -> dict[str, ServiceRecord]:
        """The nodes of a service by their full names, or bare records of all services by name for None.

        Raises:
            BackendUnavailable: the question cannot be sent.
        """
        if service is not None and not self._wire.can_exist(service):
            return {}
        lookup = _Lookup(service, self._clock, self._timeout)
        self._running.add(lookup)
        try:
            await lookup.run(lambda: self._network.ask(self._wire.query(service)))
        finally:
            self._running.discard(lookup)
        return lookup.items


class _Lookup:
    def __init__(self, service: str | None, clock: Clock, timeout: float) -> None:
        self.items: dict[str, ServiceRecord] = {}
        self._service, self._clock, self._timeout = service, clock, timeout
        self._look = asyncio.Event()
        self._due = self._limit = 0.0

    def heard(self, answer: Answer) -> None:
        for instance in answer.gone:
            self.items.pop(instance, None)
        told = answer.about(self._service)
        fresh = told.keys() - self.items.keys()
        if len(self.items) + len(fresh) <= MAX_KNOWN:
            self.items |= told
        if fresh:
            self._due = min(self._limit, self._clock.monotonic() + SETTLE)
            self._look.set()

    async def run(self, ask: Callable[[], None]) -> None:
        """Ask, ask again if nobody answers soon, and wait until the answers are complete or time is up."""
        start = self._clock.monotonic()
        self._due, self._limit = start + self._timeout, start + 2 * self._timeout
        ask()
        again = self._clock.call_later(self._timeout / 2, self._ask_again, ask)
        try:
            await wait_until(self._clock, lambda: self._due, self._look)
        finally:
            again.cancel()

    def _ask_again(self, ask: Callable[[], None]) -> None:
        if not self.items:
            with suppress(BackendUnavailable):  # the first question was sent: perhaps somebody heard that one
                ask()
