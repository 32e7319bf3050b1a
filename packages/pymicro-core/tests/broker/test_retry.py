from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pymicro import errors
from pymicro.broker import Delivery, Reject, Retry, RetryPolicy
from pymicro.broker._retry import dead_letter
from pymicro.message import Message
from pymicro.metadata import Headers


def test_delays_grow_up_to_their_maximum() -> None:
    policy = RetryPolicy(delay=0.5, factor=3.0, max_delay=10.0, jitter=0.0)
    assert [policy.delay_after(count) for count in (1, 2, 3, 4, 10_000)] == [0.5, 1.5, 4.5, 10.0, 10.0]


def test_jitter_shortens_by_its_share_at_most() -> None:
    policy = RetryPolicy(delay=10.0, jitter=0.25)
    parts = iter([0.0, 0.5, 1.0])
    assert [policy.delay_after(1, rand=lambda: next(parts)) for _ in range(3)] == [10.0, 8.75, 7.5]


def test_the_decision_depends_on_error_and_count() -> None:
    policy = RetryPolicy(max_deliveries=3, delay=1.0, jitter=0.0)
    failed, unfit = RuntimeError("x"), errors.BadRequest("y")
    assert policy.decide(failed, 1) == Retry(1.0)
    assert policy.decide(failed, 2) == Retry(2.0)
    assert policy.decide(failed, 3) == Reject("RuntimeError: x")
    assert policy.decide(unfit, 1) == Reject("BadRequest: 400 Bad Request: y")
    assert policy.decide(unfit, 1, alone=False) == Retry(1.0)
    assert policy.decide(asyncio.CancelledError(), 3) == Retry(4.0)


@pytest.mark.parametrize(
    "values",
    [
        {"max_deliveries": 0},
        {"delay": -1.0},
        {"factor": 0.5},
        {"max_delay": -1.0},
        {"jitter": 1.5},
        {"jitter": -0.1},
    ],
)
def test_values_out_of_range_are_told(values: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidOption):
        RetryPolicy(**values)


def test_a_dead_letter_of_a_dead_letter_tells_of_the_last_death() -> None:
    message = Message(Headers({"micro-dead-reason": "first", "Micro-Dead-Topic": "t", "X": "1"}), b"body")
    delivery: Delivery[Any] = Delivery(topic="t.dead", message=message, count=5)
    letter = dead_letter(delivery, "second\r\n\x00" + "x" * 1000)
    assert letter.body == b"body"
    assert letter.headers["X"] == "1"
    assert letter.headers["Micro-Dead-Topic"] == "t.dead"
    assert letter.headers["Micro-Dead-Reason"].startswith("second   x")
    assert letter.headers["Micro-Dead-Reason"].isprintable()
    assert len(letter.headers["Micro-Dead-Reason"]) == 500
    assert len(letter.headers) == 4
