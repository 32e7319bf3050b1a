"""What changed between two runs by more than the noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb
from statistics import median
from typing import NamedTuple

from figures import REFERENCE, Read, Rounds, cpu, p50, p99, rate
from rows import Run
from scenarios import SCENARIOS

_FIGURES: dict[str, Read] = {"p50": p50, "p99": p99, "rate": rate, "CPU": cpu}

#: What nobody notices.
_SMALL = 0.01


class Change(NamedTuple):
    """One figure in two runs: peers by their ratio to the reference, the reference by itself, in seconds."""

    says: str
    before: Sequence[float]
    after: Sequence[float]

    @property
    def certain(self) -> bool:
        """Whether no round of one run lies within the other's range, and the medians differ by a hundredth."""
        apart = min(self.after) > max(self.before) or min(self.before) > max(self.after)
        return apart and abs(median(self.after) / median(self.before) - 1) >= _SMALL

    @property
    def chance(self) -> float:
        """How likely that is when nothing changed: of all orders of the rounds, two."""
        return 2 / comb(len(self.before) + len(self.after), len(self.before))

    def __str__(self) -> str:
        before, after = median(self.before), median(self.after)
        return f"{self.says} {after / before - 1:+.0%}: was {before:.3g}, is {after:.3g}"


def differences(before: Run, after: Run) -> Iterator[str]:
    """What else than pymicro is different, and may be why figures are."""
    for name in ("machine", "python", "loop", "pinned", "awake"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            yield f"NOT ALIKE: {name} was {was}, is {now}"
    for name, version in after.versions.items():
        if before.versions.get(name) not in (None, version):
            yield f"{name} was {before.versions[name]}, is {version}"


def changes(old: Rounds, new: Rounds) -> Iterator[str]:
    """One line for each figure that changed, and one that says what chance alone would do.

    Peers are compared by their ratios to the reference, which say the same on a faster machine; the reference itself
    by its figures, which show how far the machines differ.
    """
    compared = [*_cells(old, new), *_weights(old, new)]
    changed = [change for change in compared if change.certain]
    yield from map(str, changed)
    by_chance = sum(change.chance for change in compared)
    yield f"{len(changed)} of {len(compared)} figures; chance alone would name {by_chance:.2g}"


def _cells(old: Rounds, new: Rounds) -> Iterator[Change]:
    for scenario in SCENARIOS:
        for peer in new.peers(scenario):
            for name, figure in _FIGURES.items():
                relative = peer != REFERENCE and bool(new.cells(scenario, REFERENCE))
                before, after = (
                    rounds.ratios(scenario, peer, figure) if relative else rounds.values(scenario, peer, figure)
                    for rounds in (old, new)
                )
                if before and after:
                    yield Change(f"{scenario} {peer}: {name}{f' to {REFERENCE}' if relative else ''}", before, after)


def _weights(old: Rounds, new: Rounds) -> Iterator[Change]:
    for peer in new.weighed():
        for name in new.names(peer):
            relative = peer != REFERENCE and bool(new.weights(name, REFERENCE))
            before, after = (_weighed(rounds, name, peer, relative) for rounds in (old, new))
            if len(before) > 1 and len(after) > 1 and all(before):
                yield Change(f"{name} {peer}{f' to {REFERENCE}' if relative else ''}:", before, after)


def _weighed(rounds: Rounds, name: str, peer: str, relative: bool) -> list[float]:
    values = rounds.weights(name, peer)
    if not relative:
        return [*values.values()]
    others = rounds.weights(name, REFERENCE)
    return [value / others[number] for number, value in values.items() if others.get(number)]
