"""Deliveries that the handler settles itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pymicro import errors
from pymicro.broker import Ack, Delivery, Dispatcher, Retry, RetryPolicy
from pymicro.message import Message
from pymicro_testing import ManualClock, settle

EXACT = RetryPolicy(jitter=0.0)


@pytest.mark.parametrize("manual", [False, True])
async def test_what_the_handler_settled_stays_settled(broker: Any, clock: ManualClock, manual: bool) -> None:
    dead = await broker.dead_letters()
    states: list[bool] = []

    async def handler(delivery: Delivery[Any]) -> None:
        states.append(delivery.settled)
        if delivery.message.body == b"ack":
            await delivery.ack()
            await delivery.retry()
        elif delivery.message.body == b"retry" and delivery.count == 1:
            await delivery.retry(7.0)
        elif delivery.message.body == b"reject":
            await delivery.reject("not wanted")
        else:
            await delivery.ack()
        states.append(delivery.settled)
        raise RuntimeError("after settling")

    async with Dispatcher(broker, "t", handler, concurrency=1, manual=manual, clock=clock):
        await broker.put(b"ack", b"retry", b"reject")
        await clock.advance(6.9)
        assert broker.told == [(b"ack", Ack()), (b"retry", Retry(7.0)), (b"reject", Ack())]
        await clock.advance(0.1)
        assert broker.told[3:] == [(b"retry", Ack())]
    assert states == [False, True] * 4
    assert dead[0].message.headers["Micro-Dead-Reason"] == "not wanted"


async def test_a_retry_by_hand_takes_effect_when_the_handler_ended(broker: Any, clock: ManualClock) -> None:
    ended = asyncio.Event()

    async def handler(delivery: Delivery[Any]) -> None:
        if delivery.count == 1:
            await delivery.retry()
            await ended.wait()

    async with Dispatcher(broker, "t", handler, clock=clock):
        await broker.put(b"1")
        await settle()
        assert broker.told == []
        ended.set()
        await settle()
        assert broker.told == [(b"1", Retry(0.0)), (b"1", Ack())]


async def test_retry_by_hand_ends_with_the_last_delivery(broker: Any, clock: ManualClock) -> None:
    calls: list[int] = []

    async def handler(delivery: Delivery[Any]) -> None:
        calls.append(delivery.count)
        await delivery.retry()

    dead = await broker.dead_letters()
    async with Dispatcher(broker, "t", handler, retry=RetryPolicy(max_deliveries=3), clock=clock):
        await broker.put(b"1")
        await settle()
    assert calls == [1, 2, 3]
    assert len(dead) == 1


async def test_an_ack_that_fails_reaches_the_handler(broker: Any, clock: ManualClock) -> None:
    caught: list[tuple[type[Exception], bool]] = []

    async def handler(delivery: Delivery[Any]) -> None:
        broker.faults["settle"] = errors.BackendUnavailable("down")
        try:
            await delivery.ack()
        except errors.BackendUnavailable as error:
            caught.append((type(error), delivery.settled))
        broker.faults.clear()

    async with Dispatcher(broker, "t", handler, clock=clock):
        await broker.put(b"1")
        await settle()
    assert caught == [(errors.BackendUnavailable, False)]
    assert broker.told == [(b"1", Ack())]


async def test_manual_means_that_the_handler_settles(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(delivery: Delivery[Any]) -> None:
        if delivery.count == 2:
            await delivery.ack()

    async with Dispatcher(broker, "t", handler, manual=True, retry=EXACT, clock=clock):
        await broker.put(b"1")
        await clock.advance(1.0)
    assert broker.told == [(b"1", Retry(1.0)), (b"1", Ack())]
    assert ["without settling" in record.message for record in caplog.records] == [True]


async def test_a_delivery_shows_what_it_is_without_its_content() -> None:
    delivery: Delivery[Any] = Delivery(topic="t", message=Message(body=b"secret"), key="k")
    assert repr(delivery) == "Delivery(topic='t', key='k', count=1, size=6)"


async def test_late_settlement_has_no_effect(broker: Any, clock: ManualClock) -> None:
    kept: list[Delivery[Any]] = []

    async def handler(delivery: Delivery[Any]) -> None:
        kept.append(delivery)

    async with Dispatcher(broker, "t", handler, clock=clock):
        await broker.put(b"1")
        await settle()
        await kept[0].reject("too late")
        await kept[0].extend()
    assert broker.told == [(b"1", Ack())]
    assert broker.extended == []
