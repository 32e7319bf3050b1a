"""One worker process, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol, Self

import msgspec

from pymicro.errors import ConfigurationError
from pymicro.record import ServiceRecord
from pymicro.workers._handover import VARIABLE, Handover
from pymicro.workers._messages import (
    Accept,
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

#: Seconds for a worker to say how it is.
_PATIENCE: Final = 1.0


class Watcher(Protocol):
    """Who is told of a worker's news."""

    def changed(self, worker: Worker) -> None:
        """It started, became fit for calls, or ceased to be."""

    def leaving(self, worker: Worker) -> None:
        """Somebody else told it to end."""

    def stop_requested(self) -> None:
        """The program wants everything to stop."""

    def asked(self, worker: Worker) -> None:
        """It wants to know how all of them are."""


class Worker:
    """A process that was started in a slot.

    Attributes:
        slot: its place, from 1.
        pid: of the process.
        settled: becomes whether it started, when it did or when it ended before.
        ended: becomes the exit status, negative for a signal.
        record: what it would register; None while it is not fit for calls.
        draining: whether it was told to end.
    """

    def __init__(self, slot: int, process: asyncio.subprocess.Process, channel: Channel[Notice], watcher: Watcher):
        loop = asyncio.get_running_loop()
        self.slot = slot
        self.pid = process.pid
        self.record: ServiceRecord | None = None
        self.draining = False
        self.settled: asyncio.Future[bool] = loop.create_future()
        self._process = process
        self._channel = channel
        self._watcher = watcher
        self._accepts: Sequence[int] = ()
        self._report: asyncio.Future[Report] | None = None
        self.ended: asyncio.Task[int] = asyncio.create_task(self._live(), name=f"worker {slot}")

    @classmethod
    async def spawn(
        cls, slot: int, id: str, sockets: Sequence[socket.socket], address: str | None, watcher: Watcher
    ) -> Self:
        """Run this program again as a worker. It has a session of its own: a terminal's Ctrl-C is not for it.

        Raises:
            OSError: the machine has no more room for a process.
            ConfigurationError: this program cannot be run again.
        """
        descriptors = tuple(sock.fileno() for sock in sockets)
        ours, theirs = socket.socketpair()
        with theirs:
            channel = await Channel[Notice].open(ours, Notice)
            handover = Handover(slot=slot, id=id, control=theirs.fileno(), sockets=descriptors, address=address)
            try:
                process = await asyncio.create_subprocess_exec(
                    *_command(),
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, VARIABLE: msgspec.json.encode(handover).decode()},
                    pass_fds=(handover.control, *descriptors),
                    start_new_session=True,
                )
            except BaseException:
                await channel.aclose()
                raise
        return cls(slot, process, channel, watcher)

    async def _live(self) -> int:
        reader = asyncio.create_task(self._read(), name=f"notices of worker {self.slot}")
        try:
            return await self._process.wait()
        finally:
            reader.cancel()  # a process that it left behind may hold the other end open
            await asyncio.wait([reader])
            await self._channel.aclose()
            self.record = None
            if not self.settled.done():
                self.settled.set_result(False)

    async def _read(self) -> None:
        async for notice in self._channel:
            self._hear(notice)

    def _hear(self, notice: Notice) -> None:
        match notice:
            case Ready(record):
                self.record = record
                self._watcher.changed(self)
            case Unready():
                self.record = None
                self._watcher.changed(self)
            case Started():
                if not self.settled.done():
                    self.settled.set_result(True)
                self._watcher.changed(self)
            case Leaving():
                self._watcher.leaving(self)
            case Stop():
                self._watcher.stop_requested()
            case Question():
                self._watcher.asked(self)
            case Report():
                if self._report is not None and not self._report.done():
                    self._report.set_result(notice)

    @property
    def serving(self) -> bool:
        """Whether it started and was not told to end."""
        return not self.ended.done() and not self.draining and self.settled.done() and self.settled.result()

    @property
    def status(self) -> int:
        """Its exit status, negative for a signal; 0 while it runs."""
        return self._process.returncode or 0

    async def until_started(self) -> bool:
        """Whether it started, once it has, or has ended."""
        await asyncio.wait([self.settled])
        return self.settled.result()

    async def until_ended(self) -> int:
        """Its exit status, once it has ended."""
        await asyncio.wait([self.ended])
        return self.ended.result()

    def tell(self, order: Order) -> None:
        """Send it a message."""
        self._channel.send(order)

    def accept(self, slots: Sequence[int]) -> None:
        """Make it accept on the sockets of these slots, and of no others."""
        if slots != self._accepts:
            self._accepts = slots
            self.tell(Accept(tuple(slots)))

    def drain(self, *, replaced: bool) -> None:
        """Make it finish and end. One that has not started has nothing to finish."""
        if not self.settled.done():
            self._signal(signal.SIGTERM)
        self.draining = True
        self.tell(Drain(replaced))

    def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def report(self) -> Report | str:
        """How it is, or why it does not say so within a second. Those who ask at the same time share one answer."""
        if self.ended.done():
            return f"ended with {describe_status(self.status)}"
        if not self.settled.done():
            return "starts"
        if self._report is None or self._report.done():
            self._report = asyncio.get_running_loop().create_future()
            self.tell(Inquiry())
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(self._report)
        except TimeoutError:
            return "does not answer"


def _command() -> list[str]:
    if not sys.executable or not sys.orig_argv:
        raise ConfigurationError("worker processes run the program again, and this one does not know how it was run")
    return [sys.executable, *sys.orig_argv[1:]]


def describe_status(status: int) -> str:
    """An exit status as people read it: a number, or the name of the signal that ended the process."""
    try:
        return signal.Signals(-status).name if status < 0 else str(status)
    except ValueError:  # a real-time signal
        return f"signal {-status}"
