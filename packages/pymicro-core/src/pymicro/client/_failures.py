"""What became of attempts that failed, and what the caller is told of them."""

from __future__ import annotations

from collections import Counter
from typing import Final

from pymicro import errors
from pymicro.client._outgoing import Outgoing
from pymicro.record import Node
from pymicro.selector import Outcome

ID: Final = "pymicro.client"

#: The nodes that were tried, and the error of each attempt.
Failures = list[tuple[Node, Exception]]


def outcome_of(error: errors.Error | errors.ConnectionFailed) -> Outcome:
    """What an error says about the node."""
    if isinstance(error, errors.DialFailed):
        return Outcome.UNREACHABLE
    if isinstance(error, errors.ConnectionFailed):
        return Outcome.BROKEN
    if error.executed == "no" and error.transient:
        return Outcome.OVERLOADED
    return Outcome.OK


def failed(service: str, failures: Failures, age: float | None) -> errors.Error:
    """The error itself if a node sent it, else one that says which nodes failed, and why, with the last as its cause.

    Args:
        service: what was called.
        failures: at least one.
        age: seconds since the registry vouched for its data; None when it was not asked.
    """
    last = failures[-1][1]
    executed: errors.Executed = "no" if all(_executed(error) == "no" for _, error in failures) else "maybe"
    if isinstance(last, errors.Error):
        last.executed = executed
        return last
    times = Counter(f"{_at(node)}: {_cause(error)}" for node, error in failures)
    tried = "; ".join(f"{text} ({count} times)" if count > 1 else text for text, count in times.items())
    known = "" if age is None else f" (registry data is {age:.1f} s old)"
    made = errors.Unavailable(f"{service} cannot be reached: {tried}{known}", ID, executed=executed)
    made.__cause__ = last
    return made


def late(request: Outgoing, seconds: float) -> errors.DeadlineExceeded:
    """The deadline passed."""
    where = f" from {_at(request.node)}" if request.node else ": no node was reached"
    text = f"no answer of {request.service} {request.endpoint} within {seconds:.3g} s{where}"
    return errors.DeadlineExceeded(text, ID, executed="maybe" if request.sent else "no")


def relayed(error: errors.Error) -> errors.Error:
    """`error`, marked as the outcome of a call of this process."""
    error.relayed = True
    return error


def _at(node: Node) -> str:
    return node.address if node.id == node.address else f"{node.id} at {node.address}"


def _cause(error: Exception) -> str:
    return error.detail if isinstance(error, (errors.Error, errors.ConnectionFailed)) else str(error)


def _executed(error: Exception) -> str:
    return error.executed if isinstance(error, (errors.Error, errors.ConnectionFailed)) else "maybe"
