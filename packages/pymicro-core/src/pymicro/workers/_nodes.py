"""The nodes that the workers are in the registry: one for each address."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pymicro.clock import Clock
from pymicro.record import ServiceRecord
from pymicro.server import Presence, Registrar, ServerOptions


class Nodes:
    """Keeps registered what workers are ready for.

    Args:
        registry: where to register.
        options: TTL and interval.
        clock, logger: of the service.
    """

    def __init__(self, registry: Registrar, options: ServerOptions, clock: Clock, logger: logging.Logger) -> None:
        self._registry = registry
        self._options = options
        self._clock = clock
        self._logger = logger
        self._registered: dict[str, tuple[ServiceRecord, Presence]] = {}

    async def keep(self, records: Sequence[ServiceRecord], *, must: bool = False) -> None:
        """Register one node for each address, and withdraw those that have no record any more.

        While workers of one address differ, as when the program is being replaced by a newer one, the record that is
        registered stays until none of them has it.

        Raises:
            ConfigurationError: the registry cannot hold the record, and it `must`; else that is logged and tried again.
            BackendRefused: credentials or permissions, likewise.
        """
        wanted: dict[str, list[ServiceRecord]] = {}
        for record in records:
            wanted.setdefault(record.nodes[0].address, []).append(record)
        for address in self._registered.keys() - wanted.keys():
            await self._registered.pop(address)[1].aclose()
        for address, candidates in wanted.items():
            await self._keep_one(address, candidates, must=must)

    async def _keep_one(self, address: str, candidates: Sequence[ServiceRecord], *, must: bool) -> None:
        if address not in self._registered:
            presence = Presence(self._registry, candidates[-1], {}, self._options, self._clock, self._logger)
            self._registered[address] = candidates[-1], presence
            await presence.start(must=must)
            return
        record, presence = self._registered[address]
        if record not in candidates:
            self._registered[address] = candidates[-1], presence
            await presence.update(candidates[-1])

    def reasons(self) -> dict[str, str]:
        """Why they are not in the registry; empty when they are."""
        return {
            name: reason for _, presence in self._registered.values() for name, reason in presence.reasons().items()
        }

    async def aclose(self) -> None:
        """Withdraw all of them."""
        await self.keep([])
