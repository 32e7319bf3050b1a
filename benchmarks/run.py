"""Measures every peer in every scenario and prints tables. README.md says how to read them."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from cells import CellFailedError, cores, run_cell
from load import SCENARIOS
from peers import load, names
from report import Row, Run, changes, read, tables


def main() -> int:
    """Returns the exit status: 1 when a cell failed."""
    options = _options()
    before = read(options.compare) if options.compare else None
    run = _describe(options.peers)
    print(f"{run.machine}, Python {run.python}, {', '.join(f'{k} {v}' for k, v in sorted(run.versions.items()))}")
    if not run.pinned:
        print("NOT PINNED: this system has no second core to give, or no way to pin. Do not compare with pinned runs.")
    rows, failed = asyncio.run(_rounds(options))
    print(tables(rows))
    if options.out:
        options.out.write_bytes(msgspec.json.Encoder().encode_lines([run, *rows]))
    if before is not None:
        print("\nchanged by more than the noise:")
        print("\n".join(changes(before, rows)) or "nothing")
    return failed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each cell is measured (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each time (1)")
    parser.add_argument("--peers", nargs="+", default=names(), choices=names(), metavar="PEER", help=_listed(names()))
    parser.add_argument(
        "--scenarios", nargs="+", default=[*SCENARIOS], choices=SCENARIOS, metavar="SCENARIO", help=_listed(SCENARIOS)
    )
    parser.add_argument("--out", type=Path, help="file to store the rows in, as JSON lines")
    parser.add_argument("--compare", type=Path, help="stored rows to say what changed since")
    return parser.parse_args()


def _listed(of: Iterable[str]) -> str:
    return f"some of {', '.join(of)}; all by default"


async def _rounds(options: argparse.Namespace) -> tuple[list[Row], int]:
    """Every peer once a round, so that what comes and goes on the machine meets all of them."""
    rows: list[Row] = []
    failed = 0
    for number in range(options.rounds):
        for scenario in options.scenarios:
            for peer in options.peers:
                sys.stderr.write(f"\rround {number + 1} of {options.rounds}: {scenario} {peer}\033[K")
                try:
                    measured = await run_cell(peer, scenario, options.seconds)
                except CellFailedError as error:
                    sys.stderr.write(f"\n{peer} {scenario}: {error}\n")
                    failed = 1
                    continue
                rows.append(Row(round=number, peer=peer, scenario=scenario, measured=measured))
    sys.stderr.write("\r\033[K")
    return rows, failed


def _describe(peers: Sequence[str]) -> Run:
    distributions = {"uvloop", *(name for peer in peers for name in load(peer).DISTRIBUTIONS)}
    return Run(
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        python=platform.python_version(),
        pinned=cores() != (None, None),
        versions={name: version(name) for name in distributions},
    )


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    raise SystemExit(main())
