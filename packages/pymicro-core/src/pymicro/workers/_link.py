"""A worker's link to its supervisor: what it is told, and what it tells."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from typing import Final

from pymicro._internal.logs import log
from pymicro.plugins.toolkit import Component
from pymicro.record import ServiceRecord
from pymicro.registry import Registration, RegistrationState
from pymicro.server import Health, Registrar, Server, Statistics, statistics
from pymicro.transport import Listener
from pymicro.workers._handover import Handover
from pymicro.workers._messages import (
    Accept,
    Answer,
    Channel,
    Drain,
    Inquiry,
    Leaving,
    Notice,
    Order,
    Question,
    Ready,
    Report,
    Started,
    Stop,
    Unready,
)

#: Seconds to wait for the supervisor, which itself waits for the other workers.
_PATIENCE: Final = 2.0


class Link(Component):
    """The channel to the supervisor, from a worker's side.

    Args:
        handover: what the worker was handed.
        server: what it serves.
        stop: set when the worker shall drain and end.
    """

    def __init__(self, handover: Handover, server: Server, stop: asyncio.Event) -> None:
        self.id = handover.id
        self.address = handover.address
        self._slot = handover.slot
        self._control = handover.control
        self._doors = [socket.socket(fileno=descriptor) for descriptor in handover.sockets]
        self._server = server
        self._stop = stop
        self._channel: Channel[Order] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._listening: dict[int, Listener] = {}
        self._answer: asyncio.Future[tuple[Health, Statistics]] | None = None
        self._leaving = False
        self._logger = logging.getLogger("pymicro.service")

    async def _open(self) -> None:
        self._channel = await Channel[Order].open(socket.socket(fileno=self._control), Order)
        self._reader = asyncio.create_task(self._read(self._channel), name="orders of the supervisor")
        self._server.siblings = self.all_together
        self._server.succeeded = False

    async def _close(self) -> None:
        self._server.siblings = None
        self._close_doors()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        if self._channel is not None:
            await self._channel.aclose()

    def _close_doors(self) -> None:
        """Keep none of the listening sockets open but those that this worker accepts on, or they would never close."""
        for door in self._doors:
            door.close()
        self._doors.clear()

    def tell(self, notice: Notice) -> None:
        """Send the supervisor a message."""
        if self._channel is not None:
            self._channel.send(notice)

    @property
    def signals(self) -> dict[signal.Signals, Callable[[], None]]:
        """What signals mean to a worker: they are the supervisor's business, but one may be told to leave."""
        return {
            signal.SIGTERM: self._leave,
            signal.SIGINT: lambda: None,
            signal.SIGHUP: lambda: None,
        }

    def _leave(self) -> None:
        """Say so once: an event loop may run a signal's handler twice, and users may press twice."""
        if not self._leaving:
            self._leaving = True
            self.tell(Leaving())

    def request_stop(self) -> None:
        """Ask for the end of all workers."""
        self.tell(Stop())

    async def serve(self) -> None:
        """Say that everything is open, and serve until the supervisor says otherwise or is gone."""
        self.tell(Started())
        await self._stop.wait()

    def registrar(self, name: str) -> Registrar:
        """Where the worker registers: at the supervisor, which registers all of them at the registry called `name`."""
        return _SupervisorRegistrar(self, name)

    async def _read(self, channel: Channel[Order]) -> None:
        async for order in channel:
            await self._obey(order)
        log(self._logger, logging.ERROR, "the supervisor is gone", service=self._server.name)
        self._drain(replaced=False)

    async def _obey(self, order: Order) -> None:
        match order:
            case Accept(slots):
                await self._accept(set(slots))
            case Drain(replaced):
                self._drain(replaced=replaced)
            case Inquiry():
                self.tell(Report(await self._server.health(), statistics(self._server)))
            case Answer(health, stats):
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result((health, stats))

    async def _accept(self, slots: set[int]) -> None:
        if not self._doors:
            return  # it drains
        for slot in self._listening.keys() - slots:
            await self._listening.pop(slot).stop_accepting()
        for slot in slots - self._listening.keys():
            try:
                self._listening[slot] = await self._server.listen(self._doors[slot - 1].dup())
            except OSError as error:
                log(self._logger, logging.ERROR, "cannot accept", worker=self._slot, error=str(error))

    def _drain(self, *, replaced: bool) -> None:
        self._server.succeeded = replaced
        self._listening.clear()
        self._close_doors()
        self._stop.set()

    async def all_together(self) -> tuple[Health, Statistics]:
        """How all workers are. Those who ask at the same time share one answer."""
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
            self.tell(Question())
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(self._answer)
        except TimeoutError:
            own = await self._server.health()
            reasons = {**own.reasons, "supervisor": "does not answer"}
            return Health(status="failing", reasons=reasons), statistics(self._server)


class _SupervisorRegistrar:
    """Tells the supervisor what a registry would be told."""

    def __init__(self, link: Link, name: str) -> None:
        self.name = name
        self._link = link

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        self._link.tell(Ready(service))
        return _Membership(self._link)


class _Membership(Registration):
    """That the supervisor counts on this worker. Whether it could register is its own to say."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._closed = False

    @property
    def state(self) -> RegistrationState:
        return "closed" if self._closed else "registered"

    async def update(self, service: ServiceRecord) -> None:
        self._link.tell(Ready(service))

    async def aclose(self) -> None:
        self._closed = True
        self._link.tell(Unready())
