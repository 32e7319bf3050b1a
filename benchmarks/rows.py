"""What is stored of a run: one JSON object a line. All times are seconds, all sizes bytes."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

import machine
import programs
from load import Measured
from peers import load

#: Where the figures of the last release are.
RESULTS = Path(__file__).with_name("results")


class Run(msgspec.Struct, tag=True, kw_only=True):
    """The first line of a file: where and on what the rows after it were measured.

    Attributes:
        began: date and time, ISO 8601.
        machine: processor, cores, system.
        python: its version.
        loop: whose event loops: uvloop or asyncio.
        pinned: whether each side had a core of its own.
        awake: whether those were kept from sleeping.
        versions: of the distributions and programs that were measured.
        left_out: peers that could not be measured here, and why.
        command: the arguments of the command.
    """

    began: str
    machine: str
    python: str
    loop: str
    pinned: bool
    awake: bool = False
    versions: dict[str, str]
    left_out: dict[str, str] = {}
    command: str = ""


class Row(msgspec.Struct, tag=True, kw_only=True):
    """One cell in one round."""

    round: int
    peer: str
    scenario: str
    measured: Measured


class Figure(msgspec.Struct, tag=True, kw_only=True):
    """One figure of a peer that is no cell, in one round; `footprint.py` and `instructions.py` say which there are."""

    round: int
    peer: str
    name: str
    value: float


class Stored(msgspec.Struct):
    """What files hold, together."""

    runs: list[Run]
    rows: list[Row]
    figures: list[Figure]


def read(paths: Iterable[Path]) -> Stored:
    """All rows of some files."""
    stored = Stored([], [], [])
    for path in paths:
        for line in path.read_bytes().splitlines():
            match msgspec.json.decode(line, type=Run | Row | Figure):
                case Run() as run:
                    stored.runs.append(run)
                case Row() as row:
                    stored.rows.append(row)
                case Figure() as figure:
                    stored.figures.append(figure)
    return stored


def write(path: Path, run: Run, rows: Iterable[Row | Figure]) -> None:
    """Store a run."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.Encoder().encode_lines([run, *rows]))


def available(wanted: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Which peers can be measured here, and why the others cannot. What has to be built is built now."""
    ready: list[str] = []
    left_out: dict[str, str] = {}
    for name in wanted:
        try:
            for program in load(name).ABOUT.programs:
                programs.find(program)
                if program == "go":
                    programs.go_greeter()
        except (ImportError, programs.MissingError) as error:
            left_out[name] = str(error)
        else:
            ready.append(name)
    return ready, left_out


def describe(peers: Sequence[str], *, uvloop: bool, awake: bool = False, left_out: dict[str, str], command: str) -> Run:
    """A run that begins now."""
    abouts = [load(peer).ABOUT for peer in peers]
    distributions = {name for about in abouts for name in about.distributions} | ({"uvloop"} if uvloop else set())
    versions = {name: version(name) for name in distributions}
    versions |= {program: programs.version(program) for about in abouts for program in about.programs}
    return Run(
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine.name(),
        python=platform.python_version(),
        loop="uvloop" if uvloop else "asyncio",
        pinned=bool(machine.places().server),
        versions=dict(sorted(versions.items())),
        awake=awake,
        left_out=left_out,
        command=command,
    )
