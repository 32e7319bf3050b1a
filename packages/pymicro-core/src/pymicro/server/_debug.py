"""`Debug.Health` and `Debug.Stats`, which every service answers. Shapes follow go-micro `debug/proto`."""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pymicro.server._server import Server


class Health(msgspec.Struct, kw_only=True):
    """How a node is.

    Attributes:
        status: `ok`; `draining` while it stops; `failing` when something that it needs is missing.
        reasons: by component, why it is not ready; empty when it is.
    """

    status: str
    reasons: dict[str, str] = {}


class Statistics(msgspec.Struct, kw_only=True):
    """Counters of one node since its start.

    Attributes:
        timestamp, started: seconds since the epoch: now, and the start.
        uptime: seconds since the start.
        memory: resident bytes of the process; 0 where the platform does not say.
        threads: running threads.
        gc: collections of the garbage collector.
        requests, errors: calls, streams and events served; how many of them failed.
        in_flight, streams, connections: now.
        workers: processes that the counters are sums of.
    """

    timestamp: int
    started: int
    uptime: int
    memory: int
    threads: int
    gc: int
    requests: int
    errors: int
    in_flight: int
    streams: int
    connections: int
    workers: int = 1


class Counters:
    """What the call path counts."""

    __slots__ = ("errors", "requests", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.requests = 0
        self.errors = 0


class Debug:
    """The handler."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def health(self) -> Health:
        """Whether this node wants calls, and if not, why."""
        if self._server.siblings is not None:
            return (await self._server.siblings())[0]
        return await self._server.health()

    async def stats(self) -> Statistics:
        """Counters of this node."""
        if self._server.siblings is not None:
            return (await self._server.siblings())[1]
        return statistics(self._server)


def statistics(server: Server) -> Statistics:
    """Counters of this process."""
    now = server.clock.time()
    return Statistics(
        timestamp=int(now),
        started=int(server.stats.started),
        uptime=int(now - server.stats.started),
        memory=resident_bytes(),
        threads=threading.active_count(),
        gc=sum(generation["collections"] for generation in gc.get_stats()),
        requests=server.stats.requests,
        errors=server.stats.errors,
        in_flight=server.in_flight,
        streams=server.streams,
        connections=server.connections,
    )


def resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 where the platform does not say."""
    if not sys.platform.startswith("linux"):
        return 0
    with open("/proc/self/statm", "rb") as file:  # kept by the kernel in memory: reading it does not block
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
