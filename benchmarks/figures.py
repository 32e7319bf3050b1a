"""Figures by round: what is read from rows, without the rounds that others disturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from load import Measured
from rows import Figure, Row
from scenarios import SCENARIOS

#: The peer that the others are compared with, round by round.
REFERENCE = "grpc_aio"
#: Cores that others may use before a round does not count, as long as so many rounds are left.
_DISTURBED, _ENOUGH = 0.15, 3

Read = Callable[[Measured], float]


def p50(cell: Measured) -> float:
    """Seconds."""
    return cell.p50


def p99(cell: Measured) -> float:
    """Seconds."""
    return cell.p99


def rate(cell: Measured) -> float:
    """Calls a second."""
    return cell.rate


def cpu(cell: Measured) -> float:
    """Seconds of CPU a call, of all sides."""
    return cell.client_cpu + cell.server_cpu + cell.broker_cpu


class Rounds:
    """All rounds of a run."""

    def __init__(self, rows: Iterable[Row], figures: Iterable[Figure] = ()) -> None:
        self._cells: dict[tuple[str, str], dict[int, Measured]] = {}
        for row in rows:
            self._cells.setdefault((row.scenario, row.peer), {})[row.round] = row.measured
        self._figures: dict[tuple[str, str], dict[int, float]] = {}
        for figure in figures:
            self._figures.setdefault((figure.name, figure.peer), {})[figure.round] = figure.value

    def peers(self, scenario: str) -> list[str]:
        """Who has figures for `scenario`, in the order they were measured."""
        return [peer for name, peer in self._cells if name == scenario]

    def cells(self, scenario: str, peer: str) -> dict[int, Measured]:
        """A cell by round, without the disturbed rounds if enough others are left."""
        cells = self._cells.get((scenario, peer), {})
        quiet = {number: cell for number, cell in cells.items() if not disturbed(cell)}
        return quiet if len(quiet) >= _ENOUGH else cells

    def values(self, scenario: str, peer: str, figure: Read) -> list[float]:
        """One figure of a cell in every round."""
        return [figure(cell) for cell in self.cells(scenario, peer).values()]

    def ratios(
        self, scenario: str, peer: str, figure: Read, to: str = REFERENCE, to_scenario: str | None = None
    ) -> list[float]:
        """The same divided by another peer's (in another scenario) in the same round."""
        others = self.cells(to_scenario or scenario, to)
        cells = self.cells(scenario, peer).items()
        return [figure(cell) / figure(others[number]) for number, cell in cells if number in others]

    def weighed(self) -> list[str]:
        """Who has figures that are no cells, in the order they were measured."""
        return list(dict.fromkeys(peer for _, peer in self._figures))

    def names(self, peer: str) -> list[str]:
        """Which of those `peer` has."""
        return [name for name, whose in self._figures if whose == peer]

    def weights(self, name: str, peer: str) -> dict[int, float]:
        """Such a figure by round."""
        return self._figures.get((name, peer), {})


def disturbed(cell: Measured) -> bool:
    """Whether others had too much of the machine."""
    return (cell.foreign or 0.0) > _DISTURBED


def times(rounds: Rounds, scenario: str, peer: str) -> list[float]:
    """How many times better than the reference, round by round."""
    if SCENARIOS[scenario].key == "rate":
        return rounds.ratios(scenario, peer, rate)
    return [1 / ratio for ratio in rounds.ratios(scenario, peer, p50)]


def spread(values: Sequence[float], unit: float = 1.0) -> str:
    """Median, least and greatest, after multiplying."""
    if not values:
        return "-"
    least, greatest = min(values) * unit, max(values) * unit
    return f"{short(median(values) * unit)} ({short(least)}-{short(greatest)})"


def short(value: float) -> str:
    """Three digits."""
    if abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.0f}" if abs(value) < 10_000 else f"{value / 1000:.1f}k"


def table(columns: Sequence[str], lines: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table whose first column is text."""
    head = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    return head + [f"| {' | '.join(line)} |" for line in lines]
