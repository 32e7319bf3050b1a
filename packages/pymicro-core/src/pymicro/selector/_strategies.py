"""Strategies: which of the nodes that may be called is called. The source of chance is passed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pymicro.selector._types import Candidate, Strategy

#: A number from 0 up to and without 1.
Chance = Callable[[], float]


def random(chance: Chance) -> Strategy:
    """Each node is as likely as the other."""

    def choose(candidates: Sequence[Candidate], key: str | None) -> Candidate:
        return candidates[int(chance() * len(candidates))]

    return choose


def round_robin(chance: Chance) -> Strategy:
    """One after the other, from a random one on, so that many clients do not begin with the same node."""
    count = int(chance() * 1_000_000)

    def choose(candidates: Sequence[Candidate], key: str | None) -> Candidate:
        nonlocal count
        count += 1
        return candidates[count % len(candidates)]

    return choose


def least_conn(chance: Chance) -> Strategy:
    """The node with the fewest attempts in flight from here; of several, one at random."""

    def choose(candidates: Sequence[Candidate], key: str | None) -> Candidate:
        least = min(candidate.in_flight for candidate in candidates)
        idlest = [candidate for candidate in candidates if candidate.in_flight == least]
        return idlest[int(chance() * len(idlest))]

    return choose


STRATEGIES: Final[Mapping[str, Callable[[Chance], Strategy]]] = {
    "random": random,
    "round_robin": round_robin,
    "least_conn": least_conn,
}
