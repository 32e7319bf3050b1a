"""The tables of brokers, and of calls through them: what a message costs, and how that compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from figures import Rounds, disturbed, rate, short, spread, table
from load import Measured
from measures import reached_by
from messaging import BACKENDS, SYSTEMS

_TITLES = {
    "publish": ("Publishing 1 KiB, 64 at a time, until the broker has it", SYSTEMS),
    "consume": ("Consuming 1 KiB, 64 in hands, each acknowledged", SYSTEMS),
    "call": ("Calls through a broker, 1 KiB there and back, 64 in flight", ("raw", "pymicro", "nats_micro")),
}
_NAMES = {"raw": "client library", "faststream": "FastStream", "nats_micro": "nats-py micro"}
#: What pymicro must reach of the client library's rate, and where it means to go.
_MUST, _GOAL = 0.6, 0.9


def broker_tables(rounds: Rounds) -> list[str]:
    """One table for each of publishing, consuming and calls; empty when nothing was measured."""
    return [line for what, (title, systems) in _TITLES.items() for line in _one(rounds, what, title, systems)][1:]


def _one(rounds: Rounds, what: str, title: str, systems: Sequence[str]) -> list[str]:
    lines = [[*_line(rounds, what, name, systems)] for name in BACKENDS if rounds.peers(f"{what} {name}")]
    if not lines:
        return []
    columns = ["over", *(f"{_name(system)}, per second" for system in systems)]
    columns += [f"CPU µs: {' / '.join(map(_name, systems))}", "CPU µs of the broker", "pymicro to client library"]
    columns += ["reached", "the same by CPU", f"pymicro to {_name(systems[-1])}", "rounds"]
    return ["", f"### {title}\n", *table(columns, lines)]


def _name(system: str) -> str:
    return _NAMES.get(system, system)


def _line(rounds: Rounds, what: str, name: str, systems: Sequence[str]) -> Iterator[str]:
    scenario, cost = f"{what} {name}", _both if what == "call" else _client
    yield BACKENDS[name].says
    for system in systems:
        yield spread(rounds.values(scenario, system, rate))
    yield " / ".join(_cost(rounds.values(scenario, system, cost)) for system in systems)
    yield _cost(rounds.values(scenario, "pymicro", lambda cell: cell.broker_cpu))
    ratios = rounds.ratios(scenario, "pymicro", rate, "raw")
    yield spread(ratios)
    yield reached_by(median(ratios), _MUST, _GOAL) if ratios else "-"
    yield spread(rounds.ratios(scenario, "raw", cost, "pymicro"))
    yield spread(rounds.ratios(scenario, "pymicro", rate, systems[-1]))
    cells = [found for system in systems if (found := rounds.cells(scenario, system).values())]
    among = any(disturbed(cell) for found in cells for cell in found)
    yield f"{min(map(len, cells))}{', disturbed' if among else ''}"


def _client(cell: Measured) -> float:
    return cell.client_cpu


def _both(cell: Measured) -> float:
    """Of both sides; in other scenarios the second one is who feeds."""
    return cell.client_cpu + cell.server_cpu


def _cost(values: Sequence[float]) -> str:
    return short(median(values) * 1e6) if values else "-"
