"""A mesh of Go and Python nodes under load, while nodes of both kinds stop, start and are killed.

Beside it, at the same time and with the same fates, runs a mesh of Go nodes only, to compare with. In the ordinary run
it takes some ten seconds; `PYMICRO_SOAK` is the seconds of a longer one, and `--log-cli-level=info` shows the ledger:

    PYMICRO_SOAK=120 pytest tests-integration/test_go_soak.py --log-cli-level=info
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from go_mesh import PORT, Capture, Datagram
from go_peers import GoProgram, StartGo
from processes import Program
from pymicro import Service

log = logging.getLogger(__name__)

#: Seconds of the long form; 0 for the short one.
LONG = float(os.environ.get("PYMICRO_SOAK", "0"))

#: Seconds between two fates.
PAUSE = 2.0 if LONG else 1.0

#: Calls under way at a time from each client, each for so many seconds, with a pause after each.
CALLERS = 8
WORK = 0.02
REST = 0.005

#: Calls of each client before anything happens to the nodes.
WARM = 400

#: Seconds for which a process that is gone may still be called: its peers have to take note.
NOTE = 0.5

#: By how much the share of failed calls may differ by chance.
CHANCE = 0.05

#: Datagrams that one look-up may cost.
MANY = 50


class Job(msgspec.Struct):
    seconds: float


class Load(msgspec.Struct):
    count: int
    seconds: float
    pause: float


class Failure(msgspec.Struct):
    """A call that failed; times are seconds since the epoch."""

    node: str
    began: float
    ended: float
    error: str
    executed: str = "maybe"
    idempotent: bool = False


class Held(msgspec.Struct):
    tasks: int
    descriptors: int
    objects: int
    memory: int


class Tally(msgspec.Struct):
    """What became of a client's calls: how many each node answered, and those that failed."""

    nodes: dict[str, int] = {}
    failures: list[Failure] = []
    held: Held | None = None

    @property
    def calls(self) -> int:
        return sum(self.nodes.values()) + len(self.failures)

    @property
    def share(self) -> float:
        """Of the failures among the calls."""
        return len(self.failures) / self.calls


class Soak(Protocol):
    async def held(self) -> Held: ...


class Caller(Protocol):
    async def begin(self, load: Load) -> None: ...

    async def end(self) -> Tally: ...


class Node:
    """One process of a mesh."""

    def __init__(self, kind: str, id: str, address: str, program: Program) -> None:
        self.kind, self.id, self.address, self.program = kind, id, address, program


class Death(msgspec.Struct):
    """How a node ended, between which times."""

    kind: str
    fate: str
    told: float
    gone: float

    @property
    def cause(self) -> str:
        return f"{self.kind} {self.fate}"


class Mesh:
    """The nodes of one service, in slots, and those that were there before.

    Attributes:
        deaths: by node id.
    """

    def __init__(self, start: dict[str, Callable[[], Awaitable[Node]]], kinds: list[str]) -> None:
        self.nodes: list[Node] = []
        self.deaths: dict[str, Death] = {}
        self._start, self._kinds = start, kinds

    def cause(self, failure: Failure) -> str:
        """What became of the node that a call failed at."""
        death = self.deaths.get(failure.node)
        return death.cause if death else "at a node that lives" if failure.node else "at no node"

    async def fill(self) -> None:
        """Start a node for each slot."""
        self.nodes += await asyncio.gather(*(self._start[kind]() for kind in self._kinds))

    async def replace(self, slot: int, fate: str) -> None:
        """End a node, and when it is gone start another one."""
        node = self.nodes[slot]
        told = time.time()
        node.program.signal(signal.SIGTERM if fate == "stopped" else signal.SIGKILL)
        status = await node.program.ended()
        self.deaths[node.id] = Death(node.kind, fate, told, time.time())
        assert status == (0 if fate == "stopped" else -signal.SIGKILL), "\n".join(node.program.log)
        self.nodes[slot] = await self._start[node.kind]()


@pytest.fixture
def environment(mesh_environment: dict[str, str]) -> dict[str, str]:
    """Everything as Go Micro has it."""
    return mesh_environment


@pytest.fixture
def mesh_of(start: Any, start_go: StartGo, name: str) -> Callable[..., Any]:
    """Starts a mesh of these kinds of nodes under a name of its own."""

    async def mesh_of(suffix: str, *kinds: str) -> tuple[str, Mesh]:
        service = f"{name}-{suffix}"

        async def go() -> Node:
            program = await start_go("worker", "-name", service)
            return Node("go", program.ready["id"], program.ready["address"], program)

        async def python() -> Node:
            program = await start("soak_node.py", "--drain_delay=0.5s", NODE_NAME=service)
            said = (await program.says("service started")).split()
            fields = dict(field.split("=", 1) for field in said if "=" in field)
            return Node("python", fields["node"], fields["address"], program)

        mesh = Mesh({"go": go, "python": python}, list(kinds))
        await mesh.fill()
        return service, mesh

    return mesh_of


#: What happens, one after the other: to which slot, and how. In the long form `EARLY` comes first, `LATER` goes round.
#: So all slots meet all fates, and then the Python node in slot 2 lives on and is watched for leaks.
EARLY = [(0, "stopped"), (2, "stopped"), (0, "killed"), (2, "killed")] if LONG else []
LATER = [(1, "stopped"), (3, "stopped"), (1, "killed"), (3, "killed")]


@pytest.mark.timeout(60 + 2 * LONG, func_only=True)
async def test_a_mixed_mesh_loses_only_what_it_must(
    mesh_of: Any, start: Any, start_go: StartGo, caller: Service, capture: Capture
) -> None:
    name, mixed = await mesh_of("m", "go", "go", "python", "python")
    pure_name, pure = await mesh_of("g", "go", "go", "go", "go")
    program = await start("soak_caller.py", NODE_NAME=name)
    python = caller.client.stub(f"{name}-caller", Caller, address=await program.address())
    go, go_pure = [await go_callers(start_go, each) for each in (name, pure_name)]

    async def meet(slot: int, fate: str) -> None:
        await asyncio.gather(mixed.replace(slot, fate), pure.replace(slot, fate))
        await asyncio.sleep(PAUSE)  # under load

    load = Load(CALLERS, WORK, REST)
    await python.begin(load)
    await warm(go, go_pure)
    before = await python.end()
    assert (before.failures, len(before.nodes)) == ([], 4)
    end = time.monotonic() + LONG
    await python.begin(load)
    for slot, fate in EARLY:
        await meet(slot, fate)
    survivor = mixed.nodes[2]
    at_first = await held_by(caller, survivor)
    for slot, fate in cycle(LATER) if LONG else LATER:
        await meet(slot, fate)
        if LONG and time.monotonic() > end:
            break
    tally = await python.end()
    ledger = Ledger(mixed, pure, tally, await told(go), await told(go_pure), capture.take())
    at_last = await held_by(caller, survivor)
    log.info(
        "\n".join(
            [*ledger.lines(), f"node:   {at_first}\n     -> {at_last}", f"caller: {before.held}\n     -> {tally.held}"]
        )
    )
    ledger.check()
    no_leak(at_first, at_last)
    no_leak(before.held, tally.held)
    assert not strangers(program.pid, {node.address for node in mixed.nodes})


async def go_callers(start_go: StartGo, name: str) -> GoProgram:
    """A Go client that calls all the time."""
    return await start_go(
        *("callers", "-name", name, "-count", str(CALLERS), "-seconds", str(WORK), "-pause", f"{int(1000 * REST)}ms")
    )


async def told(program: GoProgram) -> Tally:
    """What became of a Go client's calls since this was asked last."""
    said = await program.ask("tell")
    return Tally(said["nodes"], msgspec.convert(said["failures"], list[Failure], strict=False))


async def warm(*programs: GoProgram) -> None:
    """Wait until the clients know all nodes and have called each. What failed until then is not counted."""
    async with asyncio.timeout(30):
        for program in programs:
            calls = 0
            while calls < WARM:
                tally = await told(program)
                calls = calls + tally.calls if len(tally.nodes) == 4 else 0
                await asyncio.sleep(0.1)


async def held_by(caller: Service, node: Node) -> Held:
    """What a Python node holds."""
    return await caller.client.stub(node.id, Soak, address=node.address).held()


class Ledger:
    """What became of everything.

    Args:
        mixed, pure: the meshes.
        python, go: what became of the calls to the mixed one.
        go_pure: and of those to the one that has Go nodes only.
        datagrams: all of multicast DNS.
    """

    def __init__(
        self, mixed: Mesh, pure: Mesh, python: Tally, go: Tally, go_pure: Tally, datagrams: list[Datagram]
    ) -> None:
        self._mixed, self._pure = mixed, pure
        self._python, self._go, self._go_pure = python, go, go_pure
        self._datagrams = len(datagrams)
        # The rest are announcements, and Go's probes before them, which come from the port of responders.
        exchanged = [each for each in datagrams if each.asks and (each.is_response or each.source != PORT)]
        self._exchanged = len(exchanged)
        self._lookups = len({each.data for each in exchanged if not each.is_response})  # one goes to each interface

    def lines(self) -> list[str]:
        """For people."""
        fates = Counter(death.cause for death in self._mixed.deaths.values())
        return [
            f"in the mixed mesh: {told_of(fates)}; in the other one {len(self._pure.deaths)} Go nodes as well",
            f"Python calls the mixed mesh: {self._of(self._python, self._mixed)}",
            f"Go calls the mixed mesh:     {self._of(self._go, self._mixed)}",
            f"Go calls the Go mesh:        {self._of(self._go_pure, self._pure)}",
            f"mDNS: {self._lookups} look-ups cost {self._exchanged} datagrams; {self._datagrams} were sent in all",
        ]

    def _of(self, tally: Tally, mesh: Mesh) -> str:
        causes = Counter(mesh.cause(failure) for failure in tally.failures)
        return f"{tally.calls} calls, {len(tally.failures)} failed ({100 * tally.share:.2f} %): {told_of(causes)}"

    def check(self) -> None:
        """What must hold."""
        for failure in self._python.failures:
            assert failure.node in self._mixed.deaths, failure
            death = self._mixed.deaths[failure.node]
            assert death.cause != "python stopped", failure
            assert death.told <= failure.ended, failure
            assert failure.began <= death.gone + NOTE, failure
            assert not failure.idempotent, failure
        assert all(times <= CALLERS for times in Counter(each.node for each in self._python.failures).values())
        assert not [each for each in self._go.failures if self._mixed.cause(each) == "python stopped"]
        assert self._go.share <= self._go_pure.share + CHANCE
        assert self._exchanged < MANY * self._lookups


def told_of(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"


# leaks


def no_leak(before: Held | None, after: Held | None) -> None:
    """What is held may vary with the calls that are under way, and no more."""
    assert before is not None
    assert after is not None
    assert after.tasks <= before.tasks + 4 * CALLERS
    assert after.descriptors <= before.descriptors + 4 * CALLERS
    assert after.objects <= 1.1 * before.objects
    assert after.memory <= before.memory + 8 * 1024 * 1024


def strangers(pid: int, nodes: set[str]) -> list[str]:
    """Where a process has TCP connections to, other than these nodes and those who connected to it."""
    own = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A"}
    return [
        address_of(row[2])
        for row in rows
        if f"socket:[{row[9]}]" in own
        and row[3] != "0A"
        and row[1] not in listening
        and address_of(row[2]) not in nodes
    ]


def address_of(text: str) -> str:
    """An address as the kernel lists it, `0100007F:1F90`, in the usual form."""
    host, port = text.split(":")
    return f"{ipaddress.IPv4Address(bytes.fromhex(host)[::-1])}:{int(port, 16)}"
