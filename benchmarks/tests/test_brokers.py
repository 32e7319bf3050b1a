"""What the harness of the brokers promises. Nothing here depends on how fast the machine is."""

from __future__ import annotations

import os

import pytest

import report
from broker_cells import run_cell
from broker_side import Checker, Order, WrongMessageError, body
from cells import CellFailedError
from load import Measured
from messaging import BACKENDS
from pymicro_testing.servers import RedisServer
from rows import Row, Run, Stored

ORDER = Order(do="consume", system="raw", backend="jetstream", address="", topic="", messages=10)


def measured(rate: float, cpu: float) -> Measured:
    return Measured(
        calls=10,
        rate=rate,
        p50=0.0,
        p99=0.0,
        client_cpu=cpu,
        server_cpu=0.0,
        broker_cpu=0.0,
        instructions=None,
        foreign=0.0,
    )


async def test_what_is_consumed_is_counted_without_the_first() -> None:
    checker = Checker(ORDER, ORDER.all, ORDER.all - ORDER.messages)
    for number in range(ORDER.all):
        await checker.take(body(number))
    found = await checker.measured()
    assert found.calls == 10
    assert found.rate > 0
    assert found.client_cpu > 0


@pytest.mark.parametrize("wrong", [body(1)[:-1] + b"?", body(1)[:-1], body(0), b""])
async def test_a_message_that_is_wrong_or_comes_twice_fails_the_cell(wrong: bytes) -> None:
    checker = Checker(ORDER, ORDER.all, ORDER.all - ORDER.messages)
    await checker.take(body(0))
    with pytest.raises(WrongMessageError):
        await checker.take(wrong)
    with pytest.raises(WrongMessageError):
        await checker.measured()


def test_a_stored_run_says_how_pymicro_compares() -> None:
    run = Run(began="today", machine="a machine", python="3.11", loop="uvloop", pinned=True, versions={})
    rows = [
        Row(round=0, peer="raw", scenario="consume jetstream", measured=measured(1000, 0.001)),
        Row(round=0, peer="pymicro", scenario="consume jetstream", measured=measured(700, 0.002)),
    ]
    text = report.report(Stored([run], rows, []))
    assert "| NATS JetStream, on files | 1000 (1000-1000) | 700 (700-700) | - | 1000 / 2000 / - " in text
    assert "| 0.7 (0.7-0.7) | must | 0.5 (0.5-0.5) | - | 1 |" in text
    assert "Publishing" not in text


@pytest.mark.parametrize("backend", ["redis_streams", "redis_pubsub"])
@pytest.mark.parametrize("system", ["raw", "pymicro"])
async def test_a_cell_is_measured_on_a_real_server(redis_server: RedisServer, backend: str, system: str) -> None:
    published, consumed = await run_cell(BACKENDS[backend], system, redis_server, 200, uvloop=False)
    assert (published.calls, consumed.calls) == (200, 200 if BACKENDS[backend].keeps else 219)
    assert published.p50 > 0
    assert published.broker_cpu > 0


async def test_a_side_that_fails_fails_the_cell(redis_server: RedisServer) -> None:
    with pytest.raises(CellFailedError, match="a side failed"):
        await run_cell(BACKENDS["redis_streams"], "unknown", redis_server, 10, uvloop=False)
    assert redis_server.pid != os.getpid()
