"""Ending a dispatcher: what is handled, what goes back, what is left."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from pymicro import errors
from pymicro.broker import Ack, Broker, Capability, Delivery, Dispatcher, MemoryBroker, Retry, RetryPolicy
from pymicro_testing import ManualClock, no_leaks, settle


class Gated:
    """A handler that waits, and remembers what became of its calls."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.ended: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.gate = asyncio.Event()

    async def __call__(self, delivery: Delivery[Any]) -> None:
        body = delivery.message.body
        self.begun.append(body)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(body)
            raise
        self.ended.append(body)


async def remaining(broker: Broker) -> list[tuple[bytes, int]]:
    """What is in the queue, as (body, count)."""
    consumer = await broker.consume("t", queue="q")
    found: list[tuple[bytes, int]] = []

    async def collect() -> None:
        while True:
            found.extend((delivery.message.body, delivery.count) for delivery in await consumer.receive(10))

    task = asyncio.ensure_future(collect())
    await settle()
    task.cancel()
    await asyncio.wait([task])
    return found


async def test_drain_takes_no_more_and_lets_what_is_here_finish(broker: Any, clock: ManualClock) -> None:
    handler = Gated()
    async with no_leaks():
        dispatcher = Dispatcher(broker, "t", handler, queue="q", concurrency=1, prefetch=2, clock=clock)
        async with dispatcher:
            await broker.put(b"1", b"2", b"3")
            await settle()
            assert handler.begun == [b"1"]
            draining = asyncio.ensure_future(dispatcher.drain(30.0))
            await settle()
            assert not dispatcher.attached
            assert not draining.done()
            handler.gate.set()
            await draining
            assert not dispatcher.is_open
    assert handler.ended == [b"1", b"2"]
    assert broker.told == [(b"1", Ack()), (b"2", Ack())]
    assert await remaining(broker) == [(b"3", 1)]
    assert clock.pending == 0


async def test_drain_of_an_idle_dispatcher_does_not_wait(broker: Any, clock: ManualClock) -> None:
    async with Dispatcher(broker, "t", Gated(), clock=clock) as dispatcher:
        await dispatcher.drain(30.0)
        await dispatcher.drain(30.0)
    assert clock.pending == 0


async def test_drain_hands_out_what_a_consumer_without_queue_still_has(broker: Any, clock: ManualClock) -> None:
    handler = Gated()
    async with Dispatcher(broker, "t", handler, concurrency=1, prefetch=1, clock=clock) as dispatcher:
        await broker.put(b"1", b"2", b"3")
        await settle()
        draining = asyncio.ensure_future(dispatcher.drain(30.0))
        await settle()
        handler.gate.set()
        await draining
    assert handler.ended == [b"1", b"2", b"3"]


async def test_after_the_timeout_handlers_are_cancelled_and_deliveries_go_back(broker: Any, clock: ManualClock) -> None:
    handler = Gated()
    async with no_leaks(), Dispatcher(broker, "t", handler, queue="q", concurrency=1, clock=clock) as dispatcher:
        await broker.put(b"1", b"2", b"3")
        await settle()
        draining = asyncio.ensure_future(dispatcher.drain(30.0))
        await clock.advance(29.9)
        assert not draining.done()
        await clock.advance(0.1)
        await draining
    assert handler.cancelled == [b"1"]
    assert broker.told == []
    assert await remaining(broker) == [(b"1", 2), (b"2", 2), (b"3", 1)]


async def test_closing_cancels_at_once_also_during_a_drain(broker: Any, clock: ManualClock) -> None:
    handler = Gated()
    async with no_leaks(), Dispatcher(broker, "t", handler, queue="q", clock=clock) as dispatcher:
        await broker.put(b"1")
        await settle()
        draining = asyncio.ensure_future(dispatcher.drain(30.0))
        await settle()
        await dispatcher.aclose()
        await draining
    assert handler.cancelled == [b"1"]
    assert await remaining(broker) == [(b"1", 2)]


async def test_a_cancelled_drain_closes(broker: Any, clock: ManualClock) -> None:
    handler = Gated()
    async with no_leaks():
        dispatcher = await Dispatcher(broker, "t", handler, queue="q", clock=clock).__aenter__()
        await broker.put(b"1")
        await settle()
        draining = asyncio.ensure_future(dispatcher.drain(30.0))
        await settle()
        draining.cancel()
        await asyncio.wait([draining])
        assert draining.cancelled()
    assert handler.cancelled == [b"1"]
    assert await remaining(broker) == [(b"1", 2)]


async def test_what_nobody_began_can_be_given_back(broker: Any, clock: ManualClock) -> None:
    handler = Gated()
    async with Dispatcher(broker, "t", handler, queue="q", concurrency=1, clock=clock) as dispatcher:
        await broker.put(b"1", b"2")
        await settle()
        draining = asyncio.ensure_future(dispatcher.drain(30.0, pending=False))
        await settle()
        handler.gate.set()
        await draining
    assert handler.ended == [b"1"]
    assert await remaining(broker) == [(b"2", 2)]


async def test_draining_waits_for_no_delay_that_the_broker_can_do_without(broker: Any, clock: ManualClock) -> None:
    broker.lack(Capability.DELAY)

    async def handler(delivery: Delivery[Any]) -> None:
        raise RuntimeError("not yet")

    async with Dispatcher(broker, "t", handler, queue="q", clock=clock) as dispatcher:
        await broker.put(b"1")
        await settle()
        await dispatcher.drain(30.0)
    assert broker.told == [(b"1", Retry(0.0))]
    assert await remaining(broker) == [(b"1", 2)]


async def test_draining_gives_back_what_was_to_be_tried_in_place(broker: Any, clock: ManualClock) -> None:
    calls = 0

    async def handler(delivery: Delivery[Any]) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("not yet")

    policy = RetryPolicy(keep_order=True, jitter=0.0)
    async with Dispatcher(broker, "t", handler, queue="q", retry=policy, clock=clock) as dispatcher:
        await broker.put(b"1", key="k")
        await settle()
        await dispatcher.drain(30.0)
    assert calls == 1
    assert broker.told == [(b"1", Retry(1.0))]


async def test_without_redelivery_draining_waits_for_retries_here(broker: Any, clock: ManualClock) -> None:
    broker.lack(Capability.REDELIVERY, Capability.DELAY)
    counts: list[int] = []

    async def handler(delivery: Delivery[Any]) -> None:
        counts.append(delivery.count)
        if delivery.count < 3:
            raise RuntimeError("not yet")

    async with Dispatcher(broker, "t", handler, retry=RetryPolicy(jitter=0.0), clock=clock) as dispatcher:
        await broker.put(b"1")
        await settle()
        draining = asyncio.ensure_future(dispatcher.drain(30.0))
        await clock.advance(3.0)
        await draining
    assert counts == [1, 2, 3]
    assert broker.told == [(b"1", Ack())]


async def test_without_redelivery_what_is_lost_is_logged(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker.lack(Capability.REDELIVERY, Capability.DELAY)
    async with Dispatcher(broker, "t", Gated(), concurrency=1, clock=clock):
        await broker.put(b"1", b"2")
        await settle()
    assert [record.message for record in caplog.records] == ["deliveries lost topic=t number=2"]


async def test_a_partial_batch_is_handled_when_draining(broker: Any, clock: ManualClock) -> None:
    sizes: list[int] = []

    async def handler(batch: list[Delivery[Any]]) -> None:
        sizes.append(len(batch))

    async with Dispatcher(broker, "t", handler, batch=(10, 60.0), clock=clock) as dispatcher:
        await broker.put(b"1", b"2")
        await settle()
        await dispatcher.drain(5.0)
    assert sizes == [2]
    assert clock.pending == 0


async def test_a_handler_that_ignores_cancellation_delays_closing_only_so_long(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    release = asyncio.Event()

    async def handler(delivery: Delivery[Any]) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with no_leaks():
        async with Dispatcher(broker, "t", handler, queue="q", clock=clock, timeout=0.01):
            await broker.put(b"1")
            await settle()
        assert "ignore cancellation" in caplog.records[0].message
        release.set()
    assert await remaining(broker) == [(b"1", 2)]


async def test_a_handler_may_close_its_own_dispatcher(broker: Any, clock: ManualClock) -> None:
    done = asyncio.Event()

    async def handler(delivery: Delivery[Any]) -> None:
        await dispatcher.aclose()
        done.set()

    async with no_leaks(), Dispatcher(broker, "t", handler, queue="q", clock=clock) as dispatcher:
        await broker.put(b"1")
        await done.wait()


async def test_a_consumer_that_cannot_detach_does_not_hinder_the_end(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Gated()
    async with no_leaks(), Dispatcher(broker, "t", handler, queue="q", clock=clock) as dispatcher:
        await broker.put(b"1")
        await settle()
        broker.faults["detach"] = errors.BackendUnavailable("down")
        draining = asyncio.ensure_future(dispatcher.drain(30.0))
        await settle()
        handler.gate.set()
        await draining
    assert handler.ended == [b"1"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_dispatcher_that_was_never_opened_can_be_ended() -> None:
    async with no_leaks():
        dispatcher = Dispatcher(MemoryBroker(), "t", Gated())
        assert not dispatcher.attached
        await dispatcher.drain(1.0)
        await dispatcher.aclose()
        with pytest.raises(errors.Closed):
            await dispatcher.__aenter__()
