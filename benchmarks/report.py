"""Prints what stored runs say, as Markdown; `--into` puts it into a page, between two comments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from broker_tables import broker_tables
from figures import REFERENCE, Read, Rounds, disturbed, p50, p99, rate, short, spread, table, times
from load import Measured
from measures import measures
from rows import RESULTS, Run, Stored, read
from scenarios import SCENARIOS, Scenario
from weights import weights

_HELLO = ("hello_c1", "hello_c64", "hello_c256")
_BLOCK = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)


def main() -> None:
    """Do as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="stored runs; the last release's by default")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="replace the figures of this page")
    options = parser.parse_args()
    text = report(read(options.files or sorted(RESULTS.glob("*.jsonl"))))
    if options.into is None:
        print(text)
        return
    page = options.into.read_text(encoding="utf-8")
    if not _BLOCK.search(page):
        parser.error(f"{options.into} has no '<!-- figures -->'")
    options.into.write_text(_BLOCK.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page), encoding="utf-8")


def report(stored: Stored) -> str:
    """Everything: what was measured where, the goals, the tables."""
    rounds = Rounds(stored.rows, stored.figures)
    others = [scenario for name, scenario in SCENARIOS.items() if name not in _HELLO]
    parts = [
        [*_where(stored.runs)],
        measures(rounds),
        _hello(rounds),
        *(_other(rounds, scenario) for scenario in others),
        broker_tables(rounds),
        weights(rounds),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _where(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        loop = "" if run.loop == "uvloop" else f", event loop: {run.loop}'s"
        awake = ", cores kept awake" if run.awake else ""
        pinned = "" if run.pinned else ". **Not pinned**: this system has no second core to give, or no way to pin"
        yield f"* `{run.command}`, {run.began}: {run.machine}; Python {run.python}{loop}{awake}{pinned}."
        yield f"  {', '.join(f'{name} {version}' for name, version in run.versions.items())}"
        for peer, why in run.left_out.items():
            yield f"  **`{peer}` was left out**: {why}"


def _hello(rounds: Rounds) -> list[str]:
    """The greeting at 1, 64 and 256 calls in flight, in one table."""
    peers = list(dict.fromkeys(peer for name in _HELLO for peer in rounds.peers(name)))
    if not peers:
        return []
    columns = ["peer", "c1 p50 µs", "c1 p99 µs", "c64 calls/s", "c64 p99 µs", "c256 calls/s", "c256 p99 µs"]
    columns += [
        "c64 CPU µs: client + server + broker",
        "c64 instructions, thousands",
        f"c64 times `{REFERENCE}`",
        "rounds",
    ]

    def by_rate(peer: str) -> float:
        rates = (rounds.values(name, peer, rate) for name in ("hello_c64", "hello_c1", "hello_c256"))
        return -median(next(filter(None, rates)))

    lines = [_hello_cells(rounds, peer) for peer in sorted(peers, key=by_rate)]
    return ["### A greeting, with 1, 64 and 256 calls in flight\n", *table(columns, lines)]


def _hello_cells(rounds: Rounds, peer: str) -> Iterator[str]:
    one, many, more = _HELLO
    yield f"`{peer}`"
    yield spread(rounds.values(one, peer, p50), 1e6)
    yield _median(rounds.values(one, peer, p99), 1e6)
    for scenario in (many, more):
        yield spread(rounds.values(scenario, peer, rate))
        yield _median(rounds.values(scenario, peer, p99), 1e6)
    yield _cpu(rounds, many, peer)
    yield _instructions(rounds, many, peer)
    yield spread(times(rounds, many, peer))
    yield _counted([[*rounds.cells(name, peer).values()] for name in _HELLO])


def _other(rounds: Rounds, scenario: Scenario) -> list[str]:
    name, peers = scenario.name, rounds.peers(scenario.name)
    if not peers:
        return []
    unit = "messages/s" if scenario.shape == "stream" else "calls/s"
    columns = ["peer", unit, "p50 µs", "p99 µs", "CPU µs: client + server + broker", f"times `{REFERENCE}`", "rounds"]
    lines = (
        [
            f"`{peer}`{_idle_workers(rounds, scenario, peer)}",
            spread(rounds.values(name, peer, rate)),
            spread(rounds.values(name, peer, p50), 1e6),
            _median(rounds.values(name, peer, p99), 1e6),
            _cpu(rounds, name, peer),
            spread(times(rounds, name, peer)),
            _counted([[*rounds.cells(name, peer).values()]]),
        ]
        for peer in sorted(peers, key=lambda peer: -median(rounds.values(name, peer, rate)))
    )
    return [f"### {scenario.says[0].upper()}{scenario.says[1:]} (`{name}`)\n", *table(columns, lines)]


def _idle_workers(rounds: Rounds, scenario: Scenario, peer: str) -> str:
    """Says so when not all workers had calls."""
    answered = min(cell.processes or 0 for cell in rounds.cells(scenario.name, peer).values())
    return f" ({answered} of {scenario.workers} workers had calls)" if answered < scenario.workers else ""


def _median(values: Sequence[float], unit: float = 1.0) -> str:
    return short(median(values) * unit) if values else "-"


def _cpu(rounds: Rounds, scenario: str, peer: str) -> str:
    """Of each side that there is."""
    sides: list[Read] = [lambda cell: cell.client_cpu, lambda cell: cell.server_cpu, lambda cell: cell.broker_cpu]
    found = [values for side in sides if any(values := rounds.values(scenario, peer, side))]
    return " + ".join(short(median(values) * 1e6) for values in found) or "-"


def _instructions(rounds: Rounds, scenario: str, peer: str) -> str:
    cells = rounds.cells(scenario, peer).values()
    counted = [cell.instructions for cell in cells if cell.instructions is not None]
    return short(median(counted) / 1e3) if counted else "not counted"


def _counted(scenarios: Sequence[Sequence[Measured]]) -> str:
    """The fewest rounds that count of any scenario, and whether disturbed ones are among them."""
    lengths = [len(cells) for cells in scenarios if cells]
    among = any(disturbed(cell) for cells in scenarios for cell in cells)
    return f"{min(lengths)}{', disturbed' if among else ''}"


if __name__ == "__main__":
    main()
