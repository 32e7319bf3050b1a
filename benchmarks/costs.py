"""What a stretch of time cost the processes: CPU, instructions, and how much others disturbed it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

#: Linux, `clock_getcpuclockid(3)`: the CPU clock of another process, all its threads included, in nanoseconds.
_SCHEDULER_CLOCK = 2


class Sides(NamedTuple):
    """Process ids of those who take part; 0 for none. A side's children belong to it.

    Attributes:
        awake: processes that only keep the cores awake; see `machine.awake`. They are nobody's cost.
    """

    client: int
    server: int = 0
    broker: int = 0
    awake: tuple[int, ...] = ()


class Costs:
    """Measures between enter and exit.

    Args:
        sides: whose costs.

    Attributes:
        seconds: of wall clock.
        client_cpu, server_cpu, broker_cpu: seconds of CPU, user and system; 0 where there is no such side.
        foreign: cores that others had, which are other processes and, under a hypervisor, other machines; None where
            the system does not say.
        instructions: of all sides, user and kernel; None where they cannot be counted.
    """

    def __init__(self, sides: Sides) -> None:
        self._processes = [_family(pid) for pid in (sides.client, sides.server, sides.broker)]
        self._counter = InstructionCounter([pid for family in self._processes for pid in family])
        self._processes.append([*sides.awake])
        self._latest: dict[int, float] = {}
        self.foreign: float | None = None
        self.instructions: int | None = None
        self.client_cpu = self.server_cpu = self.broker_cpu = 0.0

    def __enter__(self) -> Self:
        self._counter.start()
        self._busy = _busy_seconds()
        self._before = self._cpu()
        self.seconds = -time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.seconds += time.perf_counter()
        used = [after - before for after, before in zip(self._cpu(), self._before, strict=True)]
        self.client_cpu, self.server_cpu, self.broker_cpu, _awake = used
        busy = _busy_seconds()
        if busy is not None and self._busy is not None:
            self.foreign = max(0.0, busy - self._busy - sum(used)) / self.seconds
        self.instructions = self._counter.stop()

    def _cpu(self) -> list[float]:
        return [sum(map(self._seconds, family)) for family in self._processes]

    def _seconds(self, pid: int) -> float:
        with suppress(OSError):  # a child that wrote a snapshot ended: it keeps what it had when last looked at
            self._latest[pid] = _cpu_seconds(pid)
        return self._latest.get(pid, 0.0)


def _family(pid: int) -> list[int]:
    """The process and all that descend from it; none for 0."""
    if not pid:
        return []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # not Linux, or built without it
        children = []
    return [pid, *(process for child in children for process in _family(child))]


def _cpu_seconds(pid: int) -> float:
    if pid == os.getpid():
        return time.process_time()
    if sys.platform != "linux":  # nothing tells it as exactly
        return 0.0
    return time.clock_gettime(~pid << 3 | _SCHEDULER_CLOCK)


def _busy_seconds() -> float | None:
    """Seconds of CPU that were used or stolen since the machine started."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class InstructionCounter:
    """Counts with `perf stat`: all threads of some processes, exactly from `start` to `stop`.

    Virtual machines often hide the counter, and `kernel.perf_event_paranoid` may forbid it: the count is None then.
    """

    EVENTS = ("instructions:u", "instructions:k")

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._perf: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin to count."""
        perf = shutil.which("perf")
        if perf is None:
            return
        with ExitStack() as theirs:  # the ends of the pipes that perf keeps
            orders, self._orders = os.pipe()
            self._answers, answers = os.pipe()
            theirs.callback(os.close, orders)
            theirs.callback(os.close, answers)
            pids = ",".join(map(str, self._pids))
            command = [perf, "stat", "-x,", "-e", ",".join(self.EVENTS), "-p", pids]
            command += ["--delay=-1", f"--control=fd:{orders},{answers}"]
            self._perf = subprocess.Popen(command, pass_fds=(orders, answers), stderr=subprocess.PIPE, text=True)
        self._order("enable")

    def stop(self) -> int | None:
        """End; what was counted."""
        if self._perf is None:
            return None
        self._order("disable")
        self._perf.send_signal(signal.SIGINT)
        _, text = self._perf.communicate(timeout=10)
        os.close(self._orders)
        os.close(self._answers)
        return self._sum(text)

    def _order(self, what: str) -> None:
        with suppress(BrokenPipeError):  # perf gave up: its output says why, and has no counts
            os.write(self._orders, f"{what}\n".encode())
            os.read(self._answers, 16)

    def _sum(self, text: str) -> int | None:
        lines = [line.split(",") for line in text.splitlines()]
        counts = [fields[0] for fields in lines if len(fields) > 2 and fields[2] in self.EVENTS]
        if len(counts) != len(self.EVENTS) or not all(count.isdigit() for count in counts):
            return None
        return sum(map(int, counts))
