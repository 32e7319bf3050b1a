"""Brokers that go away, leases that end, settlements that fail."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from pymicro import errors
from pymicro.broker import Ack, Delivery, Dispatcher, Retry, RetryPolicy
from pymicro_testing import ManualClock, no_leaks, settle


async def ignore(delivery: Delivery[Any]) -> None:
    pass


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.split(" topic=")[0] for record in caplog.records]


async def test_a_broker_that_is_away_at_the_start_is_tried_again(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker.faults["consume"] = errors.BackendUnavailable("down")
    async with no_leaks(), Dispatcher(broker, "t", ignore, clock=clock) as dispatcher:
        await clock.advance(60.0)
        assert not dispatcher.attached
        attempts = broker.calls.count("consume")
        assert 12 <= attempts <= 30, "it backs off, and goes on"
        broker.faults.clear()
        await clock.advance(5.0)
        assert dispatcher.attached
        await broker.put(b"1")
        await settle()
        assert broker.told == [(b"1", Ack())]
    assert events(caplog) == ["subscription failed", "subscription works again"]


@pytest.mark.parametrize("error", [errors.BackendRefused("no"), errors.InvalidOption("of another plugin")])
async def test_a_broker_that_refuses_ends_the_start(broker: Any, clock: ManualClock, error: Exception) -> None:
    broker.faults["consume"] = error
    async with no_leaks():
        with pytest.raises(type(error)):
            await Dispatcher(broker, "t", ignore, clock=clock).__aenter__()


@pytest.mark.parametrize("error", [errors.BackendUnavailable("down"), KeyError("a defect of the plugin")])
async def test_receiving_survives_faults(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.INFO)
    async with Dispatcher(broker, "t", ignore, clock=clock):
        broker.faults["receive"] = error
        await broker.put(b"1")
        await clock.advance(30.0)
        await broker.put(b"2")
        broker.faults.clear()
        await clock.advance(5.0)
        assert broker.told == [(b"1", Ack()), (b"2", Ack())]
    assert events(caplog) == ["subscription failed", "subscription works again"]


async def test_a_consumer_that_closed_by_itself_is_replaced(broker: Any, clock: ManualClock) -> None:
    async with no_leaks(), Dispatcher(broker, "t", ignore, queue="q", clock=clock) as dispatcher:
        await settle()
        await broker.consumers[0].aclose()
        await settle()
        assert not dispatcher.attached
        await broker.put(b"1")
        await clock.advance(1.0)
        assert dispatcher.attached
        assert broker.told == [(b"1", Ack())]


async def test_a_drain_during_an_outage_ends(broker: Any, clock: ManualClock) -> None:
    broker.faults["consume"] = errors.BackendUnavailable("down")
    async with no_leaks(), Dispatcher(broker, "t", ignore, clock=clock) as dispatcher:
        await settle()
        await dispatcher.drain(30.0)


async def test_settlements_that_fail_are_logged_and_hold_nothing_up(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    failing = RetryPolicy(jitter=0.0)

    async def handler(delivery: Delivery[Any]) -> None:
        if delivery.message.body == b"2":
            raise RuntimeError("not yet")

    async with Dispatcher(broker, "t", handler, concurrency=1, prefetch=3, retry=failing, clock=clock) as dispatcher:
        broker.faults["settle"] = errors.BackendUnavailable("down")
        await broker.put(b"1", b"2")
        await settle()
        assert dispatcher.in_flight == 0
        broker.faults.clear()
        await broker.put(b"3")
        await settle()
        assert broker.told == [(b"3", Ack())]
    assert [event for event in events(caplog) if event.startswith("settling")] == [
        "settling failed",
        "settling works again",
    ]


async def test_a_lease_is_extended_while_the_delivery_waits_and_is_handled(broker: Any, clock: ManualClock) -> None:
    broker.lease = 30.0
    gate = asyncio.Event()

    async def handler(delivery: Delivery[Any]) -> None:
        await gate.wait()

    async with Dispatcher(broker, "t", handler, concurrency=1, clock=clock):
        await broker.put(b"1", b"2")
        await clock.advance(90.0)
        assert sorted(broker.extended) == [b"1"] * 9 + [b"2"] * 9
        gate.set()
        await settle()
        broker.extended.clear()
        await clock.advance(90.0)
        assert broker.extended == []
    assert clock.pending == 0


async def test_a_lease_that_cannot_be_extended_cancels_the_handler(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker.lease = 30.0
    calls: list[tuple[bytes, int]] = []
    cancelled: list[float] = []

    async def handler(delivery: Delivery[Any]) -> None:
        calls.append((delivery.message.body, delivery.count))
        if len(calls) == 1:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(clock.monotonic())
                broker.faults.clear()

    async with Dispatcher(broker, "t", handler, concurrency=1, clock=clock):
        await broker.put(b"1", b"2")
        broker.faults["extend"] = errors.BackendUnavailable("down")
        await clock.advance(29.9)
        assert cancelled == []
        await clock.advance(0.1)
        assert cancelled == [30.0]
        assert broker.told[:1] == [(b"1", Retry(0.0))]
        await clock.advance(1.0)
    # The second one, which waited, may be with another consumer too: it is given back without being handled.
    assert calls == [(b"1", 1), (b"1", 2), (b"2", 2)]
    assert events(caplog)[0] == "extending of deliveries failed"


async def test_one_refused_extension_cancels_the_handler_at_once(broker: Any, clock: ManualClock) -> None:
    broker.lease = 30.0
    cancelled: list[float] = []

    async def handler(delivery: Delivery[Any]) -> None:
        if delivery.count == 1:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(clock.monotonic())

    async with Dispatcher(broker, "t", handler, clock=clock):
        await broker.put(b"1")
        broker.faults["extend"] = errors.BackendRefused("not yours")
        await clock.advance(10.0)
        assert cancelled == [10.0]
        await settle()
        assert broker.told == [(b"1", Retry(0.0)), (b"1", Ack())]


async def test_a_handler_can_extend_by_itself(broker: Any, clock: ManualClock) -> None:
    async def handler(delivery: Delivery[Any]) -> None:
        await delivery.extend()

    async with Dispatcher(broker, "t", handler, clock=clock):
        await broker.put(b"1")
        await settle()
    assert broker.extended == [b"1"]
