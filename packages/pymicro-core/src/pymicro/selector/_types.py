"""What selecting a node deals with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from pymicro.record import Node, ServiceRecord


class Outcome(StrEnum):
    """How an attempt at a node ended, as far as the node is to be judged by it."""

    OK = "ok"
    """The node answered. Business errors count as this: they say nothing bad of the node."""
    UNREACHABLE = "unreachable"
    """No connection came about."""
    BROKEN = "broken"
    """The connection was lost before the answer came."""
    OVERLOADED = "overloaded"
    """The node answered that it takes no call now (429, 503). It lives, so it is not left out."""
    UNKNOWN = "unknown"
    """Nobody can say: the caller cancelled, or the deadline passed."""


class Pick(msgspec.Struct):
    """A node that was chosen for one attempt.

    Attributes:
        node: where to go.
        service: the record that the node belongs to; None when the address was given and nothing was looked up.
    """

    node: Node
    service: ServiceRecord | None = None

    def done(self, outcome: Outcome, seconds: float = 0.0, error: BaseException | None = None) -> None:
        """Say how the attempt ended. To be called once for each pick; further calls do nothing.

        Args:
            outcome: what it says of the node.
            seconds: how long the attempt took.
            error: the cause, for people who read why a node is left out.
        """

    def answered(self) -> None:
        """Say that the node has answered while the attempt goes on, as a long stream does. `done` still follows."""


class Candidate(Protocol):
    """A node as strategies see it. They change nothing of it."""

    @property
    def node(self) -> Node:
        """The node."""

    @property
    def service(self) -> ServiceRecord:
        """The version that it runs."""

    @property
    def in_flight(self) -> int:
        """Attempts of this process that have not ended."""

    @property
    def latency(self) -> float:
        """Seconds that recent answers took, smoothed; 0.0 before the first."""


class Strategy(Protocol):
    """Chooses one of the nodes that may be called.

    A strategy given by name has one instance for each service, so it may keep a state.
    """

    def __call__(self, candidates: Sequence[Candidate], key: str | None) -> Candidate:
        """One of `candidates`, of which there is at least one.

        Args:
            candidates: in a stable order; the sequence is another one after each change.
            key: what the caller wants calls to be grouped by; None for nothing.
        """


#: Leaves some records or nodes out. A pure function: the same records give the same result.
Filter = Callable[[Sequence[ServiceRecord]], Sequence[ServiceRecord]]
