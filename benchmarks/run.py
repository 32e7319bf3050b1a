"""Measures every peer in every scenario and prints tables. README.md says how to read them."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from cells import CellFailedError, run_cell
from changes import changes, differences
from figures import Rounds
from machine import awake
from peers import load, names
from report import report
from rows import RESULTS, Row, Run, Stored, available, describe, read, write
from scenarios import SCENARIOS, Scenario

_RELEASE = RESULTS / "calls.jsonl"


def main() -> int:
    """Returns the exit status: 1 when a cell failed, or a peer was asked for that cannot be measured here."""
    parser = _parser()
    options = parser.parse_args()
    if options.release and (options.peers or options.scenarios):
        parser.error("a release has all peers and scenarios")
    if options.compare and not options.compare.is_file():
        parser.error(f"there is no {options.compare}")
    before = read([options.compare]) if options.compare else None
    peers, left_out = available(options.peers or names())
    for peer, why in left_out.items():
        print(f"LEFT OUT: {peer}: {why}", file=sys.stderr)
    if left_out and (options.peers or options.release):
        return 1
    scenarios = [SCENARIOS[name] for name in options.scenarios or SCENARIOS]
    peers = [peer for peer in peers if any(_takes_part(peer, scenario) for scenario in scenarios)]
    with awake(options.awake) as pids:
        run = describe(peers, uvloop=options.loop == "uvloop", awake=bool(pids), left_out=left_out, command=_command())
        rows, failed = asyncio.run(_rounds(options, scenarios, peers, pids))
    print(report(Stored([run], rows, [])))
    _store(options, run, rows, failed)
    if before is not None:
        print("\nchanged by more than the noise:")
        print("\n".join([*differences(before.runs[0], run), *changes(Rounds(before.rows), Rounds(rows))]))
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each cell is measured (5)")
    parser.add_argument("--seconds", type=float, default=0.8, help="how long each time (0.8)")
    parser.add_argument("--peers", nargs="+", choices=names(), metavar="PEER", help=_listed(names()))
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help=_listed(SCENARIOS))
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="of all Python sides (uvloop)")
    parser.add_argument("--awake", action="store_true", help="keep cores that wait from sleeping")
    parser.add_argument("--out", type=Path, help="file to store the rows in, as JSON lines")
    parser.add_argument(
        "--compare", type=Path, nargs="?", const=_RELEASE, help="say what changed since; no file: the last release"
    )
    parser.add_argument("--release", action="store_true", help=f"store the rows as the release's, in {_RELEASE.name}")
    return parser


def _listed(of: Iterable[str]) -> str:
    return f"some of {', '.join(of)}; all by default"


def _command() -> str:
    return " ".join(["run.py", *sys.argv[1:]])


def _store(options: argparse.Namespace, run: Run, rows: list[Row], failed: int) -> None:
    if options.out:
        write(options.out, run, rows)
    if options.release and failed:
        print(f"NOT STORED in {_RELEASE}: a cell failed", file=sys.stderr)
    elif options.release:
        write(_RELEASE, run, rows)


async def _rounds(
    options: argparse.Namespace, scenarios: list[Scenario], peers: list[str], pids: tuple[int, ...]
) -> tuple[list[Row], int]:
    """Every peer once a round, so that what comes and goes on the machine meets all of them."""
    rows: list[Row] = []
    failed, uvloop = 0, options.loop == "uvloop"
    for number in range(options.rounds):
        for scenario in scenarios:
            for peer in peers:
                if not _takes_part(peer, scenario):
                    continue
                _progress(f"round {number + 1} of {options.rounds}: {scenario.name} {peer}")
                try:
                    measured = await run_cell(peer, scenario, options.seconds, uvloop=uvloop, awake=pids)
                except CellFailedError as error:
                    _progress("")
                    print(f"{peer} {scenario.name}: {error}", file=sys.stderr)
                    failed = 1
                    continue
                rows.append(Row(round=number, peer=peer, scenario=scenario.name, measured=measured))
    _progress("")
    return rows, failed


def _progress(text: str) -> None:
    """Where it is, on a line that is written again and again; not into files."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text}\033[K")
        sys.stderr.flush()


def _takes_part(peer: str, scenario: Scenario) -> bool:
    about = load(peer).ABOUT
    return scenario.shape in about.shapes and (about.workers or not scenario.workers)


if __name__ == "__main__":
    raise SystemExit(main())
