"""Health and counters of several workers as those of one node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pymicro.server import Health, Statistics
from pymicro.workers._messages import Answer, Report

#: From best to worst.
_STATUSES: Final = ("ok", "draining", "stopped", "failing")

_SUMS: Final = ("memory", "threads", "gc", "requests", "errors", "in_flight", "streams", "connections")


def together(reports: Mapping[int, Report | str], reasons: Mapping[str, str], now: float, started: float) -> Answer:
    """The worst status with everybody's reasons, and the sums of the counters.

    Args:
        reports: by slot; a text says why there is none.
        reasons: what is wrong with the node as a whole.
        now, started: seconds since the epoch.
    """
    told = {slot: report for slot, report in reports.items() if isinstance(report, Report)}
    silent = {f"worker {slot}": report for slot, report in reports.items() if isinstance(report, str)}
    theirs = {
        f"worker {slot}: {name}": reason
        for slot, report in told.items()
        for name, reason in report.health.reasons.items()
    }
    statuses = [report.health.status for report in told.values()]
    if silent or reasons:
        statuses.append("failing")
    return Answer(
        Health(status=max(statuses, key=_STATUSES.index, default="ok"), reasons={**reasons, **silent, **theirs}),
        Statistics(
            timestamp=int(now),
            started=int(started),
            uptime=int(now - started),
            workers=len(told),
            **{name: sum(getattr(report.stats, name) for report in told.values()) for name in _SUMS},
        ),
    )
