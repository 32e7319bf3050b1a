"""Health and counters of several workers as those of one."""

from __future__ import annotations

import pytest

from pymicro.server import Health, Statistics
from pymicro.workers._messages import Report
from pymicro.workers._report import together

STATS = Statistics(
    timestamp=100,
    started=90,
    uptime=10,
    memory=1000,
    threads=2,
    gc=3,
    requests=10,
    errors=1,
    in_flight=4,
    streams=1,
    connections=5,
)


def report(status: str = "ok", **reasons: str) -> Report:
    return Report(Health(status=status, reasons=reasons), STATS)


def test_counters_are_added_up() -> None:
    stats = together({1: report(), 2: report()}, {}, 200.0, 50.0).stats
    assert (stats.timestamp, stats.started, stats.uptime, stats.workers) == (200, 50, 150, 2)
    assert (stats.memory, stats.threads, stats.gc) == (2000, 4, 6)
    assert (stats.requests, stats.errors, stats.in_flight, stats.streams, stats.connections) == (20, 2, 8, 2, 10)


@pytest.mark.parametrize(
    ("reports", "reasons", "health"),
    [
        ({1: report(), 2: report()}, {}, Health(status="ok")),
        ({1: report(), 2: report("draining")}, {}, Health(status="draining")),
        (
            {1: report("failing", db="away"), 2: report("draining")},
            {},
            Health(status="failing", reasons={"worker 1: db": "away"}),
        ),
        ({1: report(), 2: "starts"}, {}, Health(status="failing", reasons={"worker 2": "starts"})),
        ({1: report()}, {"registry": "away"}, Health(status="failing", reasons={"registry": "away"})),
    ],
)
def test_the_worst_counts_and_everybody_s_reasons_are_told(
    reports: dict[int, Report | str], reasons: dict[str, str], health: Health
) -> None:
    assert together(reports, reasons, 1.0, 0.0).health == health


def test_those_who_say_nothing_are_not_counted() -> None:
    stats = together({1: report(), 2: "does not answer"}, {}, 1.0, 0.0).stats
    assert (stats.workers, stats.requests) == (1, 10)
