"""The supervisor: keeps one worker in each slot, and registers what they serve."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

import msgspec

from pymicro._internal.backoff import backoff
from pymicro._internal.logs import log
from pymicro.clock import Clock
from pymicro.errors import ConfigurationError, PymicroError
from pymicro.plugins import Identity
from pymicro.plugins.toolkit import bind_shared, join_address, split_address
from pymicro.record import Node, ServiceRecord
from pymicro.registry import Registry
from pymicro.server import ServerOptions
from pymicro.workers._nodes import Nodes
from pymicro.workers._process import Worker, describe_status
from pymicro.workers._report import together

#: Seconds before a worker that died is started again: the first time, and the longest.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0

#: Seconds after which the deaths before are forgotten.
_LIVED: Final = 30.0

#: Seconds that a worker is given beyond its own limits for ending.
_MARGIN: Final = 5.0


class StartFailed(PymicroError):
    """A worker ended before it served, and said why.

    Attributes:
        status: its exit status, 1 if it has none that fits.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"a worker ended with {describe_status(status)} before it served")
        self.status = status if status > 0 else 1


class Parts(msgspec.Struct, kw_only=True):
    """What a supervisor works with.

    Attributes:
        identity: of the node that all workers are together.
        options: of the server.
        registry: opened while the supervisor runs.
        takes_socket: whether the workers can listen on sockets that are handed to them.
        clock: for pauses.
    """

    identity: Identity
    options: ServerOptions
    registry: AbstractAsyncContextManager[Registry]
    takes_socket: bool
    clock: Clock


class _Slot:
    """A place for one worker.

    Attributes:
        number: from 1.
        current: the worker in it.
        lock: held by whoever puts another one into it.
    """

    def __init__(self, number: int, worker: Worker) -> None:
        self.number = number
        self.current = worker
        self.lock = asyncio.Lock()


class Supervisor:
    """Starts workers, starts those again that die, replaces them, registers and withdraws, drains.

    Args:
        parts: what it works with.
        stop_requested: what to do when the program wants everything to stop.

    Attributes:
        cut_off: whether a worker was ended before it had drained.

    Raises:
        ConfigurationError: this platform cannot do it.
    """

    def __init__(self, parts: Parts, stop_requested: Callable[[], None]) -> None:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise ConfigurationError("this platform has no SO_REUSEPORT: run one process, --server_workers=1")
        self.cut_off = False
        self.stop_requested = stop_requested
        self._options = parts.options
        self._parts = parts
        self._clock = parts.clock
        self._since = parts.clock.time()
        self._logger = logging.getLogger("pymicro.service")
        self._stack = AsyncExitStack()
        self._slots: list[_Slot] = []
        self._sockets: list[socket.socket] = []
        self._address: str | None = None
        self._serials = itertools.count(1)
        self._living: set[Worker] = set()
        self._nodes: Nodes | None = None
        self._news = asyncio.Event()
        self._replacing = asyncio.Event()
        self._stopping = False
        self._in_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # as by nohup
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: set[asyncio.Task[None]] = set()

    @property
    def signals(self) -> dict[signal.Signals, Callable[[], None]]:
        """What it does on signals besides ending."""
        return {signal.SIGHUP: self._hung_up}

    def _hung_up(self) -> None:
        """SIGHUP: replace the workers, after a replacement that is under way. When the terminal went away, end."""
        if self._in_terminal and not _has_terminal():
            self.stop_requested()
        else:
            self._replacing.set()

    @property
    def node(self) -> Node | None:
        """What is registered, one of them where there are several; None while there is nothing."""
        records = self._records()
        return records[0].nodes[0] if records else None

    # life

    async def start(self) -> None:
        """Bind, start the workers, register when the first is ready; returns when all have started.

        Raises:
            ConfigurationError: the address cannot be listened on, or the registry cannot hold the record.
            BackendRefused: the registry refused.
            StartFailed: a worker ended before it served.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        registry = await self._stack.enter_async_context(self._parts.registry)
        self._nodes = nodes = Nodes(registry, self._options, self._clock, self._logger)
        if self._parts.takes_socket:
            await self._bind()
        await self._first(await self._fill(1))  # alone, so that a mistake is told once
        await nodes.keep(self._records(), must=True)
        _own(self._tasks, self._register(nodes))
        for worker in [await self._fill(number) for number in range(2, self._options.workers + 1)]:
            await self._first(worker)
        for slot in self._slots:
            _own(self._tasks, self._keep(slot))
        _own(self._tasks, self._replace_when_told())

    async def _bind(self) -> None:
        host, ports = split_address(self._options.address)
        self._sockets = await bind_shared(host, ports, self._options.workers)
        bound, port = self._sockets[0].getsockname()[:2]
        self._address = join_address(host or bound, port)

    async def stop(self) -> None:
        """Withdraw, drain all workers, wait for them. Cancelled, it kills them."""
        self._stopping = True
        try:
            await _end(self._tasks)
            if self._nodes is not None:
                await self._nodes.aclose()
            self._close_sockets()  # before the workers close theirs: then nobody waits in a queue that nobody serves
            await self._drain()
        finally:
            self._close_sockets()
            self.cut_off |= bool(self._living)
            for worker in self._living:
                worker.kill()
            await self._ended(None)
            await _end(self._tasks, self._answers)
            await self._stack.aclose()

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    async def _drain(self) -> None:
        started = [worker for worker in self._living if worker.settled.done()]
        for worker in self._living:
            worker.drain(replaced=False)
        await self._ended(self._patience)
        self.cut_off |= any(worker.ended.done() and worker.ended.result() != 0 for worker in started)

    async def _ended(self, timeout: float | None) -> None:
        if self._living:
            await asyncio.wait([worker.ended for worker in self._living], timeout=timeout)

    @property
    def _patience(self) -> float:
        return self._options.drain_delay + self._options.shutdown_timeout + _MARGIN

    # the worker in a slot

    async def _spawn(self, number: int) -> Worker:
        id = f"{self._parts.identity.id}-{next(self._serials)}"
        worker = await Worker.spawn(number, id, self._sockets, self._address, self)
        self._living.add(worker)
        worker.ended.add_done_callback(lambda _: self._left(worker))
        return worker

    def _left(self, worker: Worker) -> None:
        self._living.discard(worker)
        self.changed(worker)

    async def _fill(self, number: int) -> Worker:
        worker = await self._spawn(number)
        self._slots.append(_Slot(number, worker))
        return worker

    async def _first(self, worker: Worker) -> None:
        if not await worker.until_started():
            status = await worker.until_ended()
            log(self._logger, logging.ERROR, "worker ended before it served", **_facts(worker))
            raise StartFailed(status)

    async def _keep(self, slot: _Slot) -> None:
        """Start the slot's worker again whenever it ends unasked."""
        deaths = 0
        while True:
            worker, since = slot.current, self._clock.monotonic()
            if deaths and await worker.until_started():
                log(self._logger, logging.INFO, "worker started again", worker=worker.slot, pid=worker.pid)
            await worker.until_ended()
            if self._clock.monotonic() - since > _LIVED:
                deaths = 0
            if slot.current is worker:
                log(self._logger, logging.ERROR if worker.status else logging.INFO, "worker ended", **_facts(worker))
            while slot.current is worker:
                deaths += 1
                await self._clock.sleep(backoff(deaths, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE))
                async with slot.lock:
                    if slot.current is worker:
                        await self._start_again(slot)

    async def _start_again(self, slot: _Slot) -> None:
        try:
            slot.current = await self._spawn(slot.number)
        except OSError as error:  # the dead one stays, so there is a longer pause and another attempt
            log(self._logger, logging.ERROR, "cannot start a worker", worker=slot.number, error=str(error))

    async def _replace_when_told(self) -> None:
        while True:
            await self._replacing.wait()
            self._replacing.clear()
            log(self._logger, logging.INFO, "replacing workers")
            for slot in self._slots:
                async with slot.lock:
                    if not await self._replace(slot):
                        break
            else:
                log(self._logger, logging.INFO, "workers replaced")

    async def _replace(self, slot: _Slot) -> bool:
        """Put a successor into the slot; whether it became ready. If not, all stays as it is."""
        try:
            successor = await self._spawn(slot.number)
        except OSError as error:
            log(self._logger, logging.ERROR, "workers not replaced", worker=slot.number, error=str(error))
            return False
        if not await successor.until_started() or successor.record is None:
            why = "is not healthy" if not successor.ended.done() else f"ended with {describe_status(successor.status)}"
            log(self._logger, logging.ERROR, "workers not replaced", worker=slot.number, error=f"the successor {why}")
            await self._retire(successor)
            return False
        before, slot.current = slot.current, successor
        self.changed(successor)
        await self._retire(before)
        return True

    async def _retire(self, worker: Worker) -> None:
        worker.drain(replaced=True)
        await asyncio.wait([worker.ended], timeout=self._patience)
        if not worker.ended.done():
            log(self._logger, logging.WARNING, "worker cut off", worker=worker.slot, pid=worker.pid)
            worker.kill()
            await worker.until_ended()

    # what workers tell

    def changed(self, worker: Worker) -> None:
        """See `Watcher`."""
        self._assign()
        self._news.set()

    def leaving(self, worker: Worker) -> None:
        """See `Watcher`: the others go on, and the slot gets another one."""
        if not self._stopping:
            worker.drain(replaced=True)
            self.changed(worker)

    def asked(self, worker: Worker) -> None:
        """See `Watcher`."""
        _own(self._answers, self._answer(worker))

    def _assign(self) -> None:
        """Say who accepts on which socket: the slot's own worker, or while that is not fit for it, another one."""
        serving = [slot.current for slot in self._slots if slot.current.serving]
        fit = [worker for worker in serving if worker.record is not None] or serving
        own = {worker.slot: worker for worker in fit}
        taken: dict[Worker, list[int]] = {worker: [] for worker in serving}
        for number in range(1, len(self._sockets) + 1) if fit else ():
            taken[own.get(number) or fit[number % len(fit)]].append(number)
        if self._sockets:
            for worker, numbers in taken.items():
                worker.accept(numbers)

    def _records(self) -> list[ServiceRecord]:
        """What fit workers would register. Where they share an address, they are one node."""
        workers = [slot.current for slot in self._slots if slot.current.serving]
        records = [worker.record for worker in workers if worker.record is not None]
        return [record.with_nodes(map(self._shared, record.nodes)) for record in records] if self._sockets else records

    def _shared(self, node: Node) -> Node:
        metadata = {**node.metadata, "workers": str(self._options.workers)}
        return Node(self._parts.identity.node_id, node.address, metadata)

    async def _register(self, nodes: Nodes) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await nodes.keep(self._records())

    async def _answer(self, worker: Worker) -> None:
        current = [slot.current for slot in self._slots if not (self._stopping and slot.current.ended.done())]
        reports = await asyncio.gather(*(each.report() for each in current))
        told = {each.slot: report for each, report in zip(current, reports, strict=True)}
        reasons = self._nodes.reasons() if self._nodes is not None and not self._stopping else {}
        worker.tell(together(told, reasons, self._clock.time(), self._since))


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _facts(worker: Worker) -> dict[str, Any]:
    return {"worker": worker.slot, "pid": worker.pid, "status": describe_status(worker.status)}


def _own(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _end(*groups: set[asyncio.Task[None]]) -> None:
    tasks = [task for group in groups for task in group]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
