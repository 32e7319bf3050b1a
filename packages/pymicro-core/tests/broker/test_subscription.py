from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import pytest

from pymicro import errors
from pymicro.broker import Ack, Broker, Capability, Delivery, Retry, RetryPolicy, Subscription
from pymicro.message import Message
from pymicro_testing import ManualClock, no_leaks, settle

EXACT = RetryPolicy(jitter=0.0)


async def publish(broker: Broker, *bodies: bytes) -> None:
    for body in bodies:
        await broker.publish("t", Message(body=body), timeout=1.0)


async def keep(broker: Broker, *bodies: bytes) -> None:
    """Publish into the queue that the subscriptions of these tests consume."""
    await (await broker.consume("t", queue="q")).aclose()
    await publish(broker, *bodies)


async def fail_in_body(subscription: Subscription[bytes], error: Exception) -> None:
    async with subscription:
        async for _ in subscription:
            raise error


def subscribe(broker: Broker, clock: ManualClock, **options: Any) -> Subscription[bytes]:
    return Subscription(broker, "t", queue="q", retry=EXACT, clock=clock, **options)


async def next_of(subscription: Subscription[bytes]) -> bytes:
    return (await anext(subscription)).value


async def test_each_delivery_is_acknowledged_when_the_next_is_asked_for(broker: Any, clock: ManualClock) -> None:
    async with no_leaks(), subscribe(broker, clock) as subscription:
        assert subscription.attached
        await publish(broker, b"1", b"2")
        values: list[bytes] = []
        async for delivery in subscription:
            values.append(delivery.value)
            await settle()
            assert broker.told == [(value, Ack()) for value in values[:-1]]
            assert subscription.in_flight == 1
            if len(values) == 2:
                break
    assert values == [b"1", b"2"]
    assert broker.told == [(b"1", Ack()), (b"2", Ack())]


async def test_an_error_that_leaves_the_block_retries_the_delivery(broker: Any, clock: ManualClock) -> None:
    async with no_leaks():
        await keep(broker, b"1", b"2")
        with pytest.raises(RuntimeError, match="of the body") as caught:
            await fail_in_body(subscribe(broker, clock), RuntimeError("of the body"))
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert frames[1:] == ["fail_in_body"]
    assert broker.told == [(b"1", Retry(1.0))]
    async with subscribe(broker, clock) as again:
        assert await next_of(again) == b"2"
        await clock.advance(1.0)
        delivery = await anext(again)
        assert (delivery.value, delivery.count) == (b"1", 2)


async def test_a_permanent_error_makes_a_dead_letter(broker: Any, clock: ManualClock) -> None:
    dead = await broker.consume("t.dead")
    await keep(broker, b"1")
    with pytest.raises(errors.BadRequest):
        await fail_in_body(subscribe(broker, clock), errors.BadRequest("never"))
    (letter,) = await dead.receive(1)
    assert letter.message.body == b"1"


async def test_a_cancelled_block_gives_the_delivery_back(broker: Any, clock: ManualClock) -> None:
    begun = asyncio.Event()

    async def consume() -> None:
        async with subscribe(broker, clock) as subscription:
            async for _ in subscription:
                begun.set()
                await asyncio.Event().wait()

    async with no_leaks():
        task = asyncio.ensure_future(consume())
        await settle()
        await publish(broker, b"1")
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    async with subscribe(broker, clock) as again:
        assert (await anext(again)).count == 2


async def test_an_abandoned_wait_loses_nothing(broker: Any, clock: ManualClock) -> None:
    async with no_leaks(), subscribe(broker, clock) as subscription:
        waiting = asyncio.ensure_future(next_of(subscription))
        await settle()
        waiting.cancel()
        await asyncio.wait([waiting])
        await publish(broker, b"1")
        await settle()
        assert await next_of(subscription) == b"1"


async def test_what_the_loop_did_not_come_to_goes_back_without_an_error(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with no_leaks(), subscribe(broker, clock):
        await publish(broker, b"1")
        await settle()
    assert [settlement for _, settlement in broker.told] == [Retry(1.0)]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_breaking_out_costs_no_other_delivery_a_count(broker: Any, clock: ManualClock) -> None:
    async with subscribe(broker, clock) as subscription:
        await publish(broker, b"1", b"2")
        async for _ in subscription:
            break
    async with subscribe(broker, clock) as again:
        delivery = await anext(again)
        assert (delivery.value, delivery.count) == (b"2", 1)


async def test_deliveries_can_be_settled_by_hand(broker: Any, clock: ManualClock) -> None:
    async with subscribe(broker, clock, manual=True) as subscription:
        await publish(broker, b"1", b"2", b"3")
        async for delivery in subscription:
            if delivery.value == b"1":
                await delivery.ack()
            elif delivery.value == b"2":
                await delivery.retry(9.0)
            else:
                break
    assert broker.told == [(b"1", Ack()), (b"2", Retry(9.0)), (b"3", Retry(1.0))]


async def test_the_value_is_decoded_and_a_bad_body_never_reaches_the_loop(broker: Any, clock: ManualClock) -> None:
    def decode(delivery: Delivery[Any]) -> int:
        try:
            return int(delivery.message.body)
        except ValueError as error:
            raise errors.BadRequest("not a number") from error

    dead = await broker.consume("t.dead")
    async with Subscription(broker, "t", decode=decode, clock=clock) as subscription:
        await publish(broker, b"one", b"2")
        assert (await anext(subscription)).value == 2
    (letter,) = await dead.receive(1)
    assert letter.message.body == b"one"


async def test_draining_ends_the_loop_after_the_delivery_in_its_body(broker: Any, clock: ManualClock) -> None:
    values: list[bytes] = []
    in_body, go_on = asyncio.Event(), asyncio.Event()

    async def consume(subscription: Subscription[bytes]) -> None:
        async for delivery in subscription:
            values.append(delivery.value)
            in_body.set()
            await go_on.wait()

    async with no_leaks(), subscribe(broker, clock) as subscription:
        task = asyncio.ensure_future(consume(subscription))
        await publish(broker, b"1", b"2")
        await in_body.wait()
        draining = asyncio.ensure_future(subscription.drain(30.0))
        await settle()
        assert not draining.done()
        go_on.set()
        await draining
        await task
    assert values == [b"1"]
    assert broker.told == [(b"1", Ack())]


async def test_a_drain_that_runs_out_of_time_gives_the_delivery_back(broker: Any, clock: ManualClock) -> None:
    async with subscribe(broker, clock) as subscription:
        await publish(broker, b"1")
        delivery = await anext(subscription)
        draining = asyncio.ensure_future(subscription.drain(30.0))
        await clock.advance(30.0)
        await draining
        with pytest.raises(errors.BackendUnavailable):
            await delivery.ack()
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)
    async with subscribe(broker, clock) as again:
        assert (await anext(again)).count == 2


async def test_leaving_the_block_does_not_wait_for_retries_in_place(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker.lack(Capability.REDELIVERY, Capability.DELAY)
    await keep(broker, b"1")
    with pytest.raises(RuntimeError):
        await fail_in_body(subscribe(broker, clock), RuntimeError("of the body"))
    assert broker.told == []
    assert caplog.records[-1].message == "deliveries lost topic=t number=1"


async def test_a_subscription_that_is_not_open_says_so(broker: Any, clock: ManualClock) -> None:
    subscription = subscribe(broker, clock)
    with pytest.raises(errors.Closed):
        await anext(subscription)
    broker.faults["consume"] = errors.BackendRefused("no")
    with pytest.raises(errors.BackendRefused):
        async with subscription:
            pass
