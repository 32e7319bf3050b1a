"""Handlers that take several deliveries at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pymicro import errors
from pymicro.broker import Ack, Capability, Delivery, Dispatcher, Retry, RetryPolicy
from pymicro_testing import ManualClock, settle

EXACT = RetryPolicy(jitter=0.0)


class Batches:
    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, batch: Sequence[Delivery[Any]]) -> None:
        self.calls.append([delivery.message.body for delivery in batch])
        await self.gate.wait()


async def test_a_batch_is_full_or_has_waited(broker: Any, clock: ManualClock) -> None:
    handler = Batches()
    async with Dispatcher(broker, "t", handler, batch=(3, 0.5), clock=clock):
        await broker.put(b"1", b"2", b"3", b"4")
        await settle()
        assert handler.calls == [[b"1", b"2", b"3"]]
        await clock.advance(0.4)
        assert len(handler.calls) == 1
        await clock.advance(0.1)
        assert handler.calls == [[b"1", b"2", b"3"], [b"4"]]
        await broker.put(b"5")
        await clock.advance(0.4)
        assert len(handler.calls) == 2
        await clock.advance(0.1)
        assert handler.calls[2] == [b"5"]
    assert clock.pending == 0


async def test_batches_keep_the_order_of_a_key(broker: Any, clock: ManualClock) -> None:
    handler = Batches()
    handler.gate.clear()
    async with Dispatcher(broker, "t", handler, batch=(2, 0.0), concurrency=4, clock=clock):
        await broker.put(b"a1", b"a2", b"a3", key="a")
        await broker.put(b"b1", key="b")
        await broker.put(b"-")
        await clock.advance(0.0)
        assert sorted(handler.calls) == [[b"a1", b"a2"], [b"b1", b"-"]]
        handler.gate.set()
        await clock.advance(0.0)
        assert handler.calls[2] == [b"a3"]


async def test_deliveries_of_a_batch_are_settled_one_by_one(broker: Any, clock: ManualClock) -> None:
    dead = await broker.dead_letters()

    async def handler(batch: Sequence[Delivery[Any]]) -> None:
        by_body = {delivery.message.body: delivery for delivery in batch}
        if b"bad" in by_body:
            await by_body[b"bad"].reject("cannot be read")
        if b"good" in by_body:
            await by_body[b"good"].ack()
        if any(delivery.count == 1 for delivery in batch):
            raise errors.BadRequest("condemns none of them")

    async with Dispatcher(broker, "t", handler, batch=(4, 0.1), retry=EXACT, clock=clock):
        await broker.put(b"good", b"bad", b"x", b"y")
        await settle()
        assert broker.told == [(b"bad", Ack()), (b"good", Ack()), (b"x", Retry(1.0)), (b"y", Retry(1.0))]
        await clock.advance(1.1)
        assert broker.told[4:] == [(b"x", Ack()), (b"y", Ack())]
    assert [letter.message.body for letter in dead] == [b"bad"]


async def test_a_batch_without_redelivery_comes_again_in_order(broker: Any, clock: ManualClock) -> None:
    broker.lack(Capability.REDELIVERY, Capability.DELAY)
    calls: list[list[tuple[bytes, int]]] = []

    async def handler(batch: Sequence[Delivery[Any]]) -> None:
        calls.append([(delivery.message.body, delivery.count) for delivery in batch])
        if len(calls) == 1:
            raise RuntimeError("not yet")

    async with Dispatcher(broker, "t", handler, batch=(3, 0.1), retry=EXACT, clock=clock):
        await broker.put(b"1", b"2", b"3", b"4", key="k")
        await clock.advance(2.0)
    assert calls == [[(b"1", 1), (b"2", 1), (b"3", 1)], [(b"1", 2), (b"2", 2), (b"3", 2)], [(b"4", 1)]]
