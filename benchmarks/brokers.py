"""Measures publishing and consuming over real brokers, beside their client libraries and FastStream.

README.md says what is compared, and how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import machine
from broker_cells import run_calls, run_cell
from cells import CellFailedError
from load import Measured
from messaging import BACKENDS, CALLED, CALLS, SYSTEMS, Backend, calling, load
from pymicro_testing.servers import SERVERS, MissingServerError, NativeServer
from report import report
from rows import RESULTS, Row, Run, Stored, write

_RELEASE = RESULTS / "brokers.jsonl"
_SYSTEMS = (*SYSTEMS, "nats_micro")


def main() -> int:
    """Returns the exit status: 1 when a cell failed, or a release would be without a backend."""
    parser = _parser()
    options = parser.parse_args()
    return asyncio.run(_measure(options, [BACKENDS[name] for name in options.backends or BACKENDS]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each cell is measured (5)")
    parser.add_argument("--messages", type=int, help="how many are counted; by default as many as take a second")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, metavar="BACKEND", help=f"of {', '.join(BACKENDS)}")
    parser.add_argument("--systems", nargs="+", choices=_SYSTEMS, metavar="SYSTEM", help=f"of {', '.join(_SYSTEMS)}")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="of all sides (uvloop)")
    parser.add_argument("--out", type=Path, help="file to store the rows in, as JSON lines")
    parser.add_argument("--release", action="store_true", help=f"store the rows as the release's, in {_RELEASE.name}")
    return parser


class Cell(NamedTuple):
    """What is measured once a round: publishing and consuming, or calls."""

    backend: Backend
    system: str
    calls: bool = False

    def distributions(self) -> Sequence[str]:
        """Whose versions are told.

        Raises:
            ImportError: something is not installed.
        """
        if self.calls:
            return calling(self.backend, self.system).CALLING[self.backend.name]
        return load(self.backend, self.system).DISTRIBUTIONS[self.backend.name]

    async def run(self, server: NativeServer, messages: int | None, uvloop: bool) -> dict[str, Measured]:
        """The figures by scenario.

        Raises:
            CellFailedError: there are none.
        """
        name = self.backend.name
        if self.calls:
            measured = await run_calls(self.backend, self.system, server, messages or CALLED, uvloop=uvloop)
            return {f"call {name}": measured}
        count = messages or self.backend.messages
        published, consumed = await run_cell(self.backend, self.system, server, count, uvloop=uvloop)
        return {f"publish {name}": published, f"consume {name}": consumed}


async def _measure(options: argparse.Namespace, backends: Sequence[Backend]) -> int:
    systems = options.systems or _SYSTEMS
    wanted = [Cell(backend, system) for backend in backends for system in SYSTEMS if system in systems]
    wanted += [
        Cell(BACKENDS[name], system, calls=True)
        for name, able in CALLS.items()
        for system in able
        if BACKENDS[name] in backends and system in systems
    ]
    cells, left_out = _possible(wanted)
    async with AsyncExitStack() as stack:
        servers = await _servers(stack, [cell.backend for cell in cells], left_out)
        cells = [cell for cell in cells if cell.backend.server in servers]
        for what, why in left_out.items():
            print(f"LEFT OUT: {what}: {why}", file=sys.stderr)
        if left_out and options.release:
            return 1
        run = _describe(cells, left_out, uvloop=options.loop == "uvloop")
        rows, failed = await _rounds(options, cells, servers)
    print(report(Stored([run], rows, [])))
    for path in filter(None, (options.out, _RELEASE if options.release and not failed else None)):
        write(path, run, rows)
    return failed


def _possible(wanted: Sequence[Cell]) -> tuple[list[Cell], dict[str, str]]:
    """What can be measured here, and why the rest cannot."""
    cells: list[Cell] = []
    left_out: dict[str, str] = {}
    for cell in wanted:
        try:
            for distribution in cell.distributions():
                version(distribution)
        except (ImportError, PackageNotFoundError) as error:
            left_out[f"{'calls by ' * cell.calls}{cell.system} on {cell.backend.name}"] = str(error)
        else:
            cells.append(cell)
    return cells, left_out


async def _servers(
    stack: AsyncExitStack, backends: Sequence[Backend], left_out: dict[str, str]
) -> dict[str, NativeServer]:
    servers: dict[str, NativeServer] = {}
    for name in dict.fromkeys(backend.server for backend in backends):
        try:
            server = SERVERS[name]()
        except MissingServerError as error:
            left_out[name] = str(error)
            continue
        stack.push_async_callback(server.close)
        await server.start()
        servers[name] = server
    return servers


def _describe(cells: Sequence[Cell], left_out: dict[str, str], *, uvloop: bool) -> Run:
    names = {name for cell in cells for name in cell.distributions()}
    names |= {"uvloop"} if uvloop else set()
    return Run(
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine.name(),
        python=platform.python_version(),
        loop="uvloop" if uvloop else "asyncio",
        pinned=bool(machine.places().server),
        versions={name: version(name) for name in sorted(names)},
        left_out=left_out,
        command=" ".join(["brokers.py", *sys.argv[1:]]),
    )


async def _rounds(
    options: argparse.Namespace, cells: Sequence[Cell], servers: dict[str, NativeServer]
) -> tuple[list[Row], int]:
    """Every cell once a round, so that what comes and goes on the machine meets all of them."""
    rows: list[Row] = []
    failed = 0
    for number in range(options.rounds):
        for cell in cells:
            server = servers[cell.backend.server]
            try:
                figures = await cell.run(server, options.messages, options.loop == "uvloop")
            except CellFailedError as error:
                print(f"{cell.system} on {cell.backend.name}: {error}", file=sys.stderr)
                failed = 1
                continue
            rows += [
                Row(round=number, peer=cell.system, scenario=scenario, measured=measured)
                for scenario, measured in figures.items()
            ]
    return rows, failed


if __name__ == "__main__":
    raise SystemExit(main())
