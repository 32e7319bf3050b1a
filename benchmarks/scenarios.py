"""What is asked of the peers."""

from __future__ import annotations

import random
from typing import Any, Literal

import msgspec

from peers import Shape


class Scenario(msgspec.Struct, frozen=True):
    """One kind of load.

    Attributes:
        name: as on the command line.
        says: what it is, in a few words.
        shape: what is called.
        in_flight: calls at a time, made back to back; for a stream, messages that wait for their answer.
        key: the figure that peers are compared by.
        size: bytes of the body of an echo.
        workers: processes that serve; 0 for the one process of an ordinary server. With workers nothing is pinned to
            one core; see `machine.py`.
    """

    name: str
    says: str
    shape: Shape
    in_flight: int
    key: Literal["p50", "rate"] = "rate"
    size: int = 0
    workers: int = 0


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("hello_c1", "a greeting, one call in flight", "hello", 1, key="p50"),
        Scenario("hello_c64", "a greeting, 64 calls in flight", "hello", 64),
        Scenario("hello_c256", "a greeting, 256 calls in flight", "hello", 256),
        Scenario("echo_1k_c64", "1 KiB of bytes there and back, 64 calls in flight", "echo", 64, size=1024),
        Scenario("echo_64k_c64", "64 KiB of bytes there and back, 64 calls in flight", "echo", 64, size=65536),
        Scenario("stream_w64", "one bidirectional stream, 64 messages under way", "stream", 64),
        Scenario(
            "compute_1_worker", "a handler that computes for 500 µs, one worker process", "compute", 64, workers=1
        ),
        Scenario("compute_2_workers", "a handler that computes for 500 µs, two workers", "compute", 64, workers=2),
    )
}

#: Different requests, so that an answer to another call's request is noticed: this many, and this many large ones.
_SMALL, _LARGE = 1000, 16


def cases(scenario: Scenario) -> list[tuple[Any, Any]]:
    """Requests and their right answers, to be asked in turn, by each task from another one on."""
    if scenario.shape == "compute":
        return [(number, number) for number in range(_SMALL)]
    if scenario.shape == "echo":
        draw = random.Random(1)
        bodies = [draw.randbytes(scenario.size) for _ in range(_LARGE)]
        return [(body, body) for body in bodies]
    names = [f"J{number:03}" for number in range(_SMALL)]  # as long as John
    return [(name, f"Hello {name}") for name in names]
