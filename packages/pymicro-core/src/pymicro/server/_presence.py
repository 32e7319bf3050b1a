"""The service's presence in the registry, which its health checks can withdraw."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from pymicro._internal.logs import log
from pymicro.clock import Clock
from pymicro.record import ServiceRecord
from pymicro.registry import Registration
from pymicro.server._options import ServerOptions


class Registrar(Protocol):
    """What a presence needs of a `Registry`: its name, and `register`."""

    name: str

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        """See `Registry.register`."""


class Presence:
    """Registers, and watches over it: a failing health check withdraws the node until it passes again."""

    def __init__(
        self,
        registry: Registrar,
        record: ServiceRecord,
        probes: Mapping[str, Callable[[], Awaitable[object]]],
        options: ServerOptions,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._registry = registry
        self._record = record
        self._probes = probes
        self._options = options
        self._clock = clock
        self._logger = logger
        self._registration: Registration | None = None
        self._failing: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, must: bool = True) -> None:
        """Run the checks once, register if they pass, go on checking. Unless it `must`, a refusal is only logged."""
        await self._round(first=must)
        self._task = asyncio.create_task(self._watch(), name=f"presence of {self._record.name}")

    async def update(self, record: ServiceRecord) -> None:
        """Register `record` instead: of the same name and version without a gap, of others with a short one."""
        before, self._record = self._record, record
        if self._registration is None:
            return  # the next round registers it
        if (before.name, before.version) != (record.name, record.version):
            await self._withdraw()
            await self._register(first=False)
            return
        try:
            await self._registration.update(record)
        except Exception as error:
            log(self._logger, logging.ERROR, "registry refused", service=record.name, error=str(error))

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._options.register_interval)
            await self._round(first=False)

    async def _round(self, *, first: bool) -> None:
        before = self._failing
        self._failing = {}
        for name, probe in self._probes.items():
            try:
                async with asyncio.timeout(self._options.register_interval):
                    await probe()
            except Exception as error:
                self._failing[name] = f"{type(error).__name__}: {error}"
        if self._failing:
            if not before:
                log(
                    self._logger,
                    logging.WARNING,
                    "health check failed",
                    service=self._record.name,
                    checks=self._failing,
                )
            await self._withdraw()
        elif self._registration is None:
            await self._register(first=first)
            if before:
                log(self._logger, logging.INFO, "health checks pass again", service=self._record.name)

    async def _register(self, *, first: bool) -> None:
        try:
            self._registration = await self._registry.register(self._record, ttl=self._options.register_ttl)
        except Exception as error:  # a plugin may fail in any way, and the checks must go on
            if first:
                raise
            log(self._logger, logging.ERROR, "registry refused", service=self._record.name, error=str(error))

    async def _withdraw(self) -> None:
        registration, self._registration = self._registration, None
        if registration is None:
            return
        try:
            await registration.aclose()
        except Exception as error:  # the registry forgets by its TTL; what is in flight must still be drained
            log(self._logger, logging.ERROR, "cannot deregister", service=self._record.name, error=repr(error))

    def reasons(self) -> dict[str, str]:
        """Why the service is not ready, by check; empty when it is."""
        if self._failing:
            return dict(self._failing)
        if self._registration is None or self._registration.state != "registered":
            error = self._registration.error if self._registration else None
            return {"registry": f"not registered at {self._registry.name}" + (f": {error}" if error else "")}
        return {}

    async def aclose(self) -> None:
        """Stop checking and deregister."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._withdraw()
