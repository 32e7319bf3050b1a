"""Stored rows, and what they say: tables, and what changed between two runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

import msgspec

from load import SCENARIOS, Measured, Scenario

#: The peer that the others are compared with, round by round.
REFERENCE = "grpc_aio"
#: Cores that others may use before a round does not count, as long as so many rounds are left.
_DISTURBED, _ENOUGH = 0.15, 3


class Run(msgspec.Struct, tag=True, kw_only=True):
    """The first line of a file: where and on what the rows after it were measured.

    Attributes:
        began: date and time, ISO 8601.
        machine: processor, cores, system.
        python: its version.
        pinned: whether each side had a core of its own.
        versions: of the distributions that were measured.
    """

    began: str
    machine: str
    python: str
    pinned: bool
    versions: dict[str, str]


class Row(msgspec.Struct, tag=True, kw_only=True):
    """One cell in one round."""

    round: int
    peer: str
    scenario: str
    measured: Measured


_Figure = Callable[[Measured], float]
_FIGURES: dict[str, _Figure] = {
    "p50": lambda cell: cell.p50,
    "rate": lambda cell: cell.rate,
    "CPU": lambda cell: cell.client_cpu + cell.server_cpu,
}


def read(path: Path) -> list[Row]:
    """The rows of a file."""
    lines = path.read_bytes().splitlines()
    return [row for row in (msgspec.json.decode(line, type=Run | Row) for line in lines) if isinstance(row, Row)]


class Rounds:
    """The rounds of all cells of a run."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._cells: dict[tuple[str, str], dict[int, Measured]] = {}
        for row in rows:
            self._cells.setdefault((row.scenario, row.peer), {})[row.round] = row.measured

    def peers(self, scenario: str) -> list[str]:
        """Who has figures for `scenario`, in the order they were measured."""
        return [peer for name, peer in self._cells if name == scenario]

    def get(self, scenario: str, peer: str) -> dict[int, Measured]:
        """A cell by round, without the disturbed rounds if enough others are left."""
        cells = self._cells.get((scenario, peer), {})
        quiet = {number: cell for number, cell in cells.items() if not _disturbed(cell)}
        return quiet if len(quiet) >= _ENOUGH else cells

    def figures(self, scenario: str, peer: str, figure: _Figure) -> list[float]:
        """One figure of a cell in every round."""
        return [figure(cell) for cell in self.get(scenario, peer).values()]

    def ratios(self, scenario: str, peer: str, figure: _Figure) -> list[float]:
        """The same divided by the reference's in the same round."""
        reference = self.get(scenario, REFERENCE)
        cells = self.get(scenario, peer).items()
        return [figure(cell) / figure(reference[number]) for number, cell in cells if number in reference]


def tables(rows: Sequence[Row]) -> str:
    """One Markdown table per scenario: medians, with the least and the greatest of all rounds."""
    rounds = Rounds(rows)
    names = [name for name in SCENARIOS if rounds.peers(name)]
    return "\n".join("\n".join(_table(rounds, SCENARIOS[name])) for name in names)


def _table(rounds: Rounds, scenario: Scenario) -> Iterator[str]:
    heads = ["peer", "p50 µs", "p99 µs", "calls/s", "CPU µs client + server", "kinstr", f"times {REFERENCE}", "rounds"]
    yield f"\n{scenario.name}\n"
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'--:|' * (len(heads) - 1)}"
    for peer in rounds.peers(scenario.name):
        yield f"| {' | '.join(_cells(rounds, scenario, peer))} |"


def _cells(rounds: Rounds, scenario: Scenario, peer: str) -> Iterator[str]:
    def figures(figure: _Figure) -> list[float]:
        return rounds.figures(scenario.name, peer, figure)

    yield f"`{peer}`"
    yield _spread(figures(lambda cell: cell.p50 * 1e6))
    yield _short(median(figures(lambda cell: cell.p99 * 1e6)))
    yield _spread(figures(lambda cell: cell.rate))
    client, server = figures(lambda cell: cell.client_cpu * 1e6), figures(lambda cell: cell.server_cpu * 1e6)
    yield f"{median(client):.3g} + {median(server):.3g}"
    counted = [cell.instructions for cell in rounds.get(scenario.name, peer).values() if cell.instructions is not None]
    yield f"{median(counted) / 1e3:.3g}" if counted else "not counted"
    yield _spread(_times(rounds, scenario, peer))
    cells = rounds.get(scenario.name, peer).values()
    yield f"{len(cells)}{', disturbed' if any(map(_disturbed, cells)) else ''}"


def _disturbed(cell: Measured) -> bool:
    return (cell.foreign or 0.0) > _DISTURBED


def _times(rounds: Rounds, scenario: Scenario, peer: str) -> list[float]:
    """How many times better than the reference, round by round."""
    ratios = rounds.ratios(scenario.name, peer, _FIGURES[scenario.key])
    return ratios if scenario.key == "rate" else [1 / ratio for ratio in ratios]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{_short(median(values))} ({_short(min(values))}-{_short(max(values))})"


def _short(value: float) -> str:
    if value < 1000:
        return f"{value:.3g}"
    return f"{value:.0f}" if value < 10_000 else f"{value / 1000:.1f}k"


def changes(before: Sequence[Row], after: Sequence[Row]) -> Iterator[str]:
    """What is different by more than the noise: no round of one run lies within the other's range.

    Peers are compared by their ratios to the reference, which say the same on a faster machine; the reference itself
    by its figures, which show how far the machines differ.
    """
    old, new = Rounds(before), Rounds(after)
    for scenario in SCENARIOS:
        for peer in new.peers(scenario):
            for name, figure in _FIGURES.items():
                relative = peer != REFERENCE
                pair = [
                    rounds.ratios(scenario, peer, figure) if relative else rounds.figures(scenario, peer, figure)
                    for rounds in (old, new)
                ]
                if change := _change(*pair):
                    yield f"{scenario} {peer}: {name}{f' to {REFERENCE}' if relative else ''} {change}"


def _change(old: Sequence[float], new: Sequence[float]) -> str:
    if not old or not new or (min(new) <= max(old) and min(old) <= max(new)):
        return ""
    return f"{median(new) / median(old) - 1:+.0%}: was {median(old):.3g}, is {median(new):.3g}"
