"""The machine: where the sides run, and what it is called."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

_CPUS = Path("/sys/devices/system/cpu")
_SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() != 1:
    for _ in range(100_000):
        pass
"""


class Places(NamedTuple):
    """The cores that each process may use; empty for all."""

    server: tuple[int, ...] = ()
    client: tuple[int, ...] = ()
    broker: tuple[int, ...] = ()


def places(workers: int = 0) -> Places:
    """A core for the server and another one for the client, where that can be had.

    A broker gets a third core if there is one, and else may run on both.

    Args:
        workers: processes that serve. If there are any, the server has two cores, and the client those that are left;
            where none are left it shares the server's.
    """
    cores = _cores()
    if len(cores) < 2:
        return Places()
    both, rest = cores[:2], cores[2:]
    if workers:
        return Places(server=both, client=rest or both, broker=rest or both)
    return Places(server=both[:1], client=both[1:], broker=rest[:1] or both)


def _cores() -> tuple[int, ...]:
    """One logical processor of each core that this process may use: two threads of one core are not two cores."""
    if not hasattr(os, "sched_setaffinity"):
        return ()
    first: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            siblings = (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
        except OSError:
            siblings = str(cpu)
        first.setdefault(siblings, cpu)
    return tuple(first.values())


@contextmanager
def awake(wanted: bool) -> Iterator[tuple[int, ...]]:
    """Keep the cores of the sides from sleeping; gives the ids of the processes that do it, none where that cannot be.

    Each spins on its core at the one priority that everything else comes before (`SCHED_IDLE`, Linux).
    """
    if not wanted or not hasattr(os, "SCHED_IDLE"):
        yield ()
        return
    with ExitStack() as stack:
        pids = []
        for core in _cores()[:2]:
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", _SPIN, str(core)]))
            stack.callback(process.kill)
            pids.append(process.pid)
        yield tuple(pids)


def name() -> str:
    """Processor, cores, system."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
