"""What both of the registry's tasks are: they do their work over each connection, from its beginning to its end."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import Final

from pymicro.errors import BackendUnavailable, PymicroError
from pymicro.plugins import Build
from pymicro.plugins.toolkit import backoff, end_task, log, start_task
from pymicro_nats.connection import Link, Session

#: Seconds before the first and before later attempts after failures, at most.
_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 1.0


class Agent(ABC):
    """A task that begins when it is first woken.

    Args:
        link: the connection.
        build: clock, logger, time-out.
        name: of the task.
    """

    def __init__(self, link: Link, build: Build, name: str) -> None:
        self._link, self._build, self._clock = link, build, build.clock
        self._name = name
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._failures = 0

    @abstractmethod
    async def _begin(self, session: Session) -> None:
        """There is a new connection."""

    @abstractmethod
    async def _turn(self, session: Session) -> float | None:
        """Do what is due; the moment of the next turn, None for when it is woken."""

    @abstractmethod
    def _failed(self, error: PymicroError) -> None:
        """It cannot be done now."""

    def wake(self) -> None:
        """There is something to do."""
        self._woken.set()
        if self._task is None:
            self._task = start_task(self._run(), self._name)

    async def aclose(self) -> None:
        """End the task."""
        task, self._task = self._task, None
        await end_task(task)

    async def _run(self) -> None:
        while True:
            try:
                async with self._link.within(self._build.timeout, "connecting"):
                    session = await self._link.session()
                await self._serve(session)
            except PymicroError as error:
                self._failures += 1
                self._failed(error)
            except Exception as error:  # ours; but who watches and who is registered must hear of it
                self._failures += 1
                log(self._build.logger, logging.ERROR, "nats registry failed", exc_info=error, error=repr(error))
                self._failed(BackendUnavailable(f"the NATS registry failed: {error!r}"))
            await self._clock.sleep(backoff(self._failures or 1, first=_FIRST_RETRY, longest=_LONGEST_RETRY))

    async def _serve(self, session: Session) -> None:
        session.on_lost(self._woken.set)
        self._session = session
        try:
            async with self._link.within(self._build.timeout, "asking NATS"):
                await self._begin(session)
            while True:
                self._woken.clear()
                if session.lost.is_set():
                    raise session.reason
                async with self._link.within(self._build.timeout, "asking NATS"):
                    due = await self._turn(session)
                self._failures = 0
                await self._until(due)
        finally:
            self._session = None
            session.off_lost(self._woken.set)

    async def _until(self, due: float | None) -> None:
        if due is None:
            await self._woken.wait()
            return
        timer = self._clock.call_later(max(0.0, due - self._clock.monotonic()), self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()
