"""The ratios that pymicro means to reach, and what was measured of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

from figures import REFERENCE, Rounds, p50, rate, short, table

_MIB = 1 << 20
_HTTP, _CHANNELS, _MEMORY = "pymicro_http", "pymicro_channels", "pymicro_memory"


class Measure(NamedTuple):
    """One ratio, round by round.

    Attributes:
        says: between what.
        must, goal: what it has to reach, and where it means to go.
        values: the ratios; none where it was not measured.
        less: whether less is better.
        unit: `x` for ratios.
    """

    says: str
    must: float
    goal: float
    values: Callable[[Rounds], list[float]]
    less: bool = False
    unit: str = "x"


def _rate(scenario: str, peer: str, to: str = REFERENCE) -> Callable[[Rounds], list[float]]:
    return lambda rounds: rounds.ratios(scenario, peer, rate, to)


def _workers(peer: str) -> Callable[[Rounds], list[float]]:
    return lambda rounds: rounds.ratios("compute_2_workers", peer, rate, peer, "compute_1_worker")


def _weight(peer: str, *names: str, less: str = "") -> Callable[[Rounds], list[float]]:
    """The sum of some figures to the reference's, over what a bare Python has."""

    def values(rounds: Rounds) -> list[float]:
        def of(peer: str) -> dict[int, float]:
            found = [rounds.weights(name, peer) for name in names]
            numbers = set(found[0]).intersection(*found[1:])
            return {number: sum(values[number] for values in found) for number in numbers}

        bare = of(less) if less else {}
        mine, theirs = of(peer), of(REFERENCE)
        both = [number for number in mine if number in theirs and (not less or number in bare)]
        return [(mine[n] - bare.get(n, 0.0)) / (theirs[n] - bare.get(n, 0.0)) for n in both]

    return values


def _growth(peer: str) -> Callable[[Rounds], list[float]]:
    """MiB, of the side that grew more; to a tenth, which is as exact as resident memory is."""

    def values(rounds: Rounds) -> list[float]:
        server, client = (rounds.weights(f"growth_{side}", peer) for side in ("server", "client"))
        return [round(max(server[number], client[number]) / _MIB, 1) for number in server if number in client]

    return values


def _p50(peer: str, to: str = REFERENCE) -> Callable[[Rounds], list[float]]:
    return lambda rounds: rounds.ratios("hello_c1", peer, p50, to)


def _instructions(rounds: Rounds) -> list[float]:
    """As the machine counts, or as valgrind does if it does not."""
    mine, theirs = (rounds.cells("hello_c64", peer) for peer in (_HTTP, REFERENCE))
    counted = [(cell.instructions, theirs[number].instructions) for number, cell in mine.items() if number in theirs]
    ratios = [own / other for own, other in counted if own is not None and other is not None]
    return ratios or _weight(_HTTP, "instructions_client", "instructions_server")(rounds)


MEASURES = (
    Measure("HTTP unary, 64 in flight, calls/s, to grpc.aio", 6, 10, _rate("hello_c64", _HTTP)),
    Measure("the same to Go Micro's HTTP client and server", 9, 15, _rate("hello_c64", _HTTP, "go_micro")),
    Measure("the same to nats-py micro", 2, 3.5, _rate("hello_c64", _HTTP, "nats_micro")),
    Measure("the same to thriftpy2 sync", 1, 1.4, _rate("hello_c64", _HTTP, "thriftpy2_sync")),
    Measure("HTTP p50 at 1 in flight, to grpc.aio", 1 / 4, 1 / 7, _p50(_HTTP), less=True),
    Measure("HTTP instructions per call, to grpc.aio", 1 / 3.5, 1 / 5, _instructions, less=True),
    Measure("multiplexed unary, 64 in flight, to grpc.aio", 10, 18, _rate("hello_c64", _CHANNELS)),
    Measure("bidirectional stream, window 64, messages/s, to grpc.aio", 5, 9, _rate("stream_w64", _CHANNELS)),
    Measure("the same, a connection for the stream", 5, 9, _rate("stream_w64", _HTTP)),
    Measure("64 KiB echo (bytes), to grpc.aio", 4, 10, _rate("echo_64k_c64", _HTTP)),
    Measure("the same, multiplexed", 4, 10, _rate("echo_64k_c64", _CHANNELS)),
    Measure("in-memory transport, p50 at 1 in flight, to HTTP", 1 / 3, 1 / 6, _p50(_MEMORY, _HTTP), less=True),
    Measure("the same, 64 in flight, calls/s; on one core, HTTP on two", 3, 6, _rate("hello_c64", _MEMORY, _HTTP)),
    Measure("handler that computes for 500 µs, 2 workers to 1", 1.7, 1.9, _workers(_HTTP)),
    Measure("the same, multiplexed", 1.7, 1.9, _workers(_CHANNELS)),
    Measure("import of client and server, to grpc.aio", 1, 0.8, _weight(_CHANNELS, "import", less="python"), less=True),
    Measure("idle RSS, to grpc.aio", 1, 0.8, _weight(_CHANNELS, "rss"), less=True),
    Measure("start to first reply, to grpc.aio", 1, 0.8, _weight(_CHANNELS, "start"), less=True),
    Measure("memory growth over 1,000,000 calls, HTTP", 2, 0, _growth(_HTTP), less=True, unit=" MiB"),
    Measure("the same, multiplexed", 2, 0, _growth(_CHANNELS), less=True, unit=" MiB"),
)


def measures(rounds: Rounds) -> list[str]:
    """The table of all that were measured; empty when none was."""
    lines = list(_lines(rounds))
    if not lines:
        return []
    heads = ["ratio, round by round", "must", "goal", "median (least-greatest)", "reached"]
    return ["### Goals and what was measured\n", *table(heads, lines)]


def _lines(rounds: Rounds) -> Iterator[list[str]]:
    for measure in MEASURES:
        values = measure.values(rounds)
        if values:
            middle = median(values)
            spread = f"{short(middle)}{measure.unit} ({short(min(values))}-{short(max(values))})"
            yield [
                measure.says,
                _limit(measure, measure.must),
                _limit(measure, measure.goal),
                spread,
                reached(measure, middle),
            ]


def _limit(measure: Measure, value: float) -> str:
    if measure.less and 0 < value < 0.5:
        return f"1/{1 / value:.3g}"
    return f"{value:g}{measure.unit}"


def reached(measure: Measure, value: float) -> str:
    """Which of the two."""
    sign = -1 if measure.less else 1
    return reached_by(sign * value, sign * measure.must, sign * measure.goal)


def reached_by(value: float, must: float, goal: float) -> str:
    """The same, where more is better."""
    if value >= goal:
        return "goal"
    return "must" if value >= must else "**no**"
