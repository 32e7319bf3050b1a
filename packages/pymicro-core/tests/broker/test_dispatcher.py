"""Concurrency, order, retry, dead letters."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import random
import weakref
from collections import Counter
from typing import Any

import pytest

from pymicro import errors
from pymicro.broker import Ack, Capability, Delivery, Dispatcher, Reject, Retry, RetryPolicy
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro_testing import ManualClock, settle

EXACT = RetryPolicy(jitter=0.0)


class Recorder:
    """A handler that remembers its calls, and can be held up and made to fail."""

    def __init__(self, *failures: BaseException) -> None:
        self.calls: list[tuple[bytes, int]] = []
        self.failures = list(failures)
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, delivery: Delivery[Any]) -> None:
        self.calls.append((delivery.message.body, delivery.count))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            if self.failures:
                raise self.failures.pop(0)
        finally:
            self.running -= 1


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= level]


async def test_a_handled_delivery_is_acknowledged(broker: Any, clock: ManualClock) -> None:
    handler = Recorder()
    async with Dispatcher(broker, "t", handler, clock=clock) as dispatcher:
        assert dispatcher.attached
        await broker.put(b"1")
        await settle()
        assert broker.told == [(b"1", Ack())]
        assert dispatcher.in_flight == 0
    assert not dispatcher.attached


async def test_concurrency_is_bounded_and_used(broker: Any, clock: ManualClock) -> None:
    handler = Recorder()
    handler.gate.clear()
    async with Dispatcher(broker, "t", handler, concurrency=3, clock=clock) as dispatcher:
        await broker.put(*[b"%d" % number for number in range(10)])
        await settle()
        assert handler.running == 3
        assert dispatcher.in_flight == 6
        handler.gate.set()
        await settle()
    assert handler.most == 3
    assert [body for body, _ in handler.calls] == [b"%d" % number for number in range(10)]


async def test_prefetch_bounds_what_is_taken_from_the_broker(broker: Any, clock: ManualClock) -> None:
    handler = Recorder()
    handler.gate.clear()
    async with Dispatcher(broker, "t", handler, concurrency=1, prefetch=4, clock=clock) as dispatcher:
        await broker.put(*[b"x"] * 9)
        await settle()
        assert dispatcher.in_flight == 4
        handler.gate.set()
        await settle()
        assert len(handler.calls) == 9


async def test_one_key_is_handled_one_after_another_and_keys_concurrently(broker: Any, clock: ManualClock) -> None:
    running: dict[str | None, int] = {}
    most: dict[str | None, int] = {}
    seen: dict[str | None, list[bytes]] = {}
    total = 0

    async def handler(delivery: Delivery[Any]) -> None:
        nonlocal total
        key = delivery.key
        running[key] = running.get(key, 0) + 1
        total = max(total, sum(running.values()))
        most[key] = max(most.get(key, 0), running[key])
        seen.setdefault(key, []).append(delivery.message.body)
        for _ in range(3):
            await asyncio.sleep(0)
        running[key] -= 1

    async with Dispatcher(broker, "t", handler, concurrency=8, prefetch=64, clock=clock):
        for number in range(5):
            for key in ("a", "b", None):
                await broker.put(b"%d" % number, key=key)
        await settle()
    numbers = [b"%d" % number for number in range(5)]
    assert (most["a"], most["b"]) == (1, 1)
    assert most[None] == 5
    assert total > 5
    assert seen["a"] == seen["b"] == numbers


async def test_handlers_see_nothing_of_each_others_context(broker: Any, clock: ManualClock) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def handler(delivery: Delivery[Any]) -> None:
        seen.append(variable.get())
        variable.set("of a handler")

    variable.set("of the opener")
    async with Dispatcher(broker, "t", handler, concurrency=1, clock=clock):
        variable.set("later")
        await broker.put(b"1", b"2", b"3")
        await settle()
    assert seen == ["of the opener"] * 3


async def test_a_handler_that_cancels_its_task_ends_no_other(broker: Any, clock: ManualClock) -> None:
    handled: list[bytes] = []

    async def handler(delivery: Delivery[Any]) -> None:
        if delivery.message.body == b"1":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        else:
            await asyncio.sleep(0)
        handled.append(delivery.message.body)

    async with Dispatcher(broker, "t", handler, concurrency=1, clock=clock) as dispatcher:
        await broker.put(b"1", b"2", b"3")
        await settle()
        assert (handled, dispatcher.in_flight) == ([b"1", b"2", b"3"], 0)


async def test_failures_are_retried_with_growing_delays(broker: Any, clock: ManualClock) -> None:
    handler = Recorder(*[RuntimeError("not yet")] * 3)
    policy = RetryPolicy(delay=1.0, factor=3.0, max_delay=5.0, jitter=0.0)
    async with Dispatcher(broker, "t", handler, retry=policy, clock=clock):
        await broker.put(b"1")
        await clock.advance(20.0)
    assert broker.told == [(b"1", Retry(1.0)), (b"1", Retry(3.0)), (b"1", Retry(5.0)), (b"1", Ack())]
    assert handler.calls == [(b"1", 1), (b"1", 2), (b"1", 3), (b"1", 4)]


async def test_the_last_failure_makes_a_dead_letter(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Recorder(*[RuntimeError("line one\nline two")] * 3)
    dead = await broker.dead_letters()
    async with Dispatcher(broker, "t", handler, retry=RetryPolicy(max_deliveries=3), clock=clock):
        headers = Headers({"Content-Type": "text/plain", "Traceparent": "00-trace"})
        await broker.publish("t", Message(headers, b"1"), key="k", timeout=1.0)
        await clock.advance(10.0)
    assert len(handler.calls) == 3
    assert [settlement for _, settlement in broker.told][-1] == Ack()
    (letter,) = dead
    assert (letter.message.body, letter.key) == (b"1", "k")
    assert dict(letter.message.headers) == {
        "Content-Type": "text/plain",
        "Traceparent": "00-trace",
        "Micro-Dead-Reason": "RuntimeError: line one line two",
        "Micro-Dead-Topic": "t",
        "Micro-Dead-Count": "3",
    }
    assert sum("event failed" in line for line in lines(caplog)) == 3
    assert sum("event given up" in line for line in lines(caplog, logging.ERROR)) == 1
    assert caplog.records[0].exc_info is not None


async def test_a_permanent_error_makes_a_dead_letter_at_once(broker: Any, clock: ManualClock) -> None:
    handler = Recorder(errors.BadRequest("does not fit"), KeyError("gone"), errors.NotFound("passes maybe"))
    policy = RetryPolicy(permanent=(errors.BadRequest, LookupError), dead_letters="graveyard of {topic}", jitter=0.0)
    consumer = await broker.consume("graveyard of t")
    async with Dispatcher(broker, "t", handler, concurrency=1, retry=policy, clock=clock):
        await broker.put(b"1", b"2", b"3")
        await settle()
        assert broker.told == [(b"1", Ack()), (b"2", Ack()), (b"3", Retry(1.0))]
    letters = [*await consumer.receive(5)]
    assert [letter.message.headers["Micro-Dead-Reason"] for letter in letters] == [
        "BadRequest: 400 Bad Request: does not fit",
        "KeyError: 'gone'",
    ]


async def test_without_dead_letters_the_broker_is_told_of_the_rejection(broker: Any, clock: ManualClock) -> None:
    handler = Recorder(errors.BadRequest("no"))
    async with Dispatcher(broker, "t", handler, retry=RetryPolicy(dead_letters=None), clock=clock):
        await broker.put(b"1")
        await settle()
    assert broker.told == [(b"1", Reject("BadRequest: 400 Bad Request: no"))]


async def test_a_dead_letter_that_cannot_be_published_is_tried_again_without_the_handler(
    broker: Any, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    handler = Recorder(RuntimeError("once"))
    dead = await broker.dead_letters()
    policy = RetryPolicy(max_deliveries=1, jitter=0.0)
    async with Dispatcher(broker, "t", handler, retry=policy, clock=clock):
        await broker.put(b"1")
        broker.faults["publish"] = errors.BackendUnavailable("down")
        await clock.advance(10.0)
        assert len(handler.calls) == 1
        assert all(isinstance(settlement, Retry) for _, settlement in broker.told)
        assert len(broker.told) > 1
        del broker.faults["publish"]
        await clock.advance(60.0)
    assert len(handler.calls) == 1
    assert broker.told[-1] == (b"1", Ack())
    assert len(dead) == 1
    assert sum("publishing of dead letters" in line for line in lines(caplog, logging.INFO)) == 2


async def test_a_delivery_beyond_the_limit_is_not_handled(broker: Any, clock: ManualClock) -> None:
    crashed = await broker.consume("t", queue="q")
    await broker.put(b"1")
    for _ in range(2):
        (delivery,) = await crashed.receive(1)
        await crashed.settle(delivery, Retry())
    await crashed.aclose()
    dead, handler = await broker.dead_letters(), Recorder()
    async with Dispatcher(broker, "t", handler, queue="q", retry=RetryPolicy(max_deliveries=2), clock=clock):
        await settle()
    assert handler.calls == []
    assert dead[0].message.headers["Micro-Dead-Reason"] == "delivered 2 times, and never finished"


async def test_a_handler_that_cancels_itself_is_retried_even_on_its_last_delivery(
    broker: Any, clock: ManualClock
) -> None:
    handler = Recorder(asyncio.CancelledError())
    policy = RetryPolicy(max_deliveries=1, jitter=0.0)
    async with Dispatcher(broker, "t", handler, retry=policy, clock=clock):
        await broker.put(b"1", b"2")
        await settle()
        assert broker.told == [(b"1", Retry(1.0)), (b"2", Ack())]


async def test_a_retried_message_does_not_hold_up_its_key(broker: Any, clock: ManualClock) -> None:
    handler = Recorder(RuntimeError("not yet"))
    async with Dispatcher(broker, "t", handler, retry=EXACT, clock=clock):
        await broker.put(b"1", b"2", key="k")
        await clock.advance(1.0)
    assert handler.calls == [(b"1", 1), (b"2", 1), (b"1", 2)]


async def test_keep_order_tries_again_before_later_messages_of_the_key(broker: Any, clock: ManualClock) -> None:
    handler = Recorder(RuntimeError("not yet"))
    policy = RetryPolicy(keep_order=True, jitter=0.0)
    async with Dispatcher(broker, "t", handler, concurrency=1, prefetch=9, retry=policy, clock=clock):
        await broker.put(b"1", b"2", key="k")
        await settle()
        await broker.put(b"other", key="other")
        await broker.put(b"none")
        await clock.advance(3.0)
    assert handler.calls == [(b"1", 1), (b"other", 1), (b"none", 1), (b"1", 2), (b"2", 1)]


async def test_without_redelivery_the_retry_takes_place_here(broker: Any, clock: ManualClock) -> None:
    broker.lack(Capability.REDELIVERY, Capability.DELAY)
    handler = Recorder(*[RuntimeError("never")] * 3)
    dead = await broker.dead_letters()
    async with Dispatcher(broker, "t", handler, retry=RetryPolicy(max_deliveries=3, jitter=0.0), clock=clock):
        await broker.put(b"1", b"2", key="k")
        await clock.advance(0.9)
        assert handler.calls == [(b"1", 1)]
        assert broker.told == []
        await clock.advance(10.0)
    assert handler.calls == [(b"1", 1), (b"1", 2), (b"1", 3), (b"2", 1)]
    assert broker.told == [(b"1", Ack()), (b"2", Ack())]
    assert dead[0].message.headers["Micro-Dead-Count"] == "3"


async def test_without_redelivery_a_dead_letter_is_published_until_it_arrives(broker: Any, clock: ManualClock) -> None:
    broker.lack(Capability.REDELIVERY, Capability.DELAY)
    handler = Recorder(errors.BadRequest("no"))
    dead = await broker.dead_letters()
    async with Dispatcher(broker, "t", handler, clock=clock):
        await broker.put(b"1")
        broker.faults["publish"] = errors.BackendUnavailable("down")
        await clock.advance(5.0)
        assert broker.told == []
        del broker.faults["publish"]
        await clock.advance(1.0)
        assert broker.told == [(b"1", Ack())]
    assert (len(dead), len(handler.calls)) == (1, 1)


async def test_what_the_broker_cannot_delay_is_held_and_extended(broker: Any, clock: ManualClock) -> None:
    broker.lack(Capability.DELAY)
    broker.lease = 3.0
    handler = Recorder(RuntimeError("not yet"))
    policy = RetryPolicy(delay=10.0, jitter=0.0)
    async with Dispatcher(broker, "t", handler, concurrency=1, retry=policy, clock=clock) as dispatcher:
        await broker.put(b"1", b"2")
        await clock.advance(9.5)
        assert broker.told == [(b"2", Ack())]
        assert dispatcher.in_flight == 1
        assert broker.extended == [b"1"] * 9
        await clock.advance(0.5)
        assert broker.told == [(b"2", Ack()), (b"1", Retry(0.0)), (b"1", Ack())]


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"prefetch": 0}, {"batch": (0, 1.0)}, {"batch": (5, 1.0), "prefetch": 4}]
)
def test_numbers_out_of_range_are_told(broker: Any, options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidOption):
        Dispatcher(broker, "t", Recorder(), **options)


@pytest.mark.parametrize("abilities", [(), (Capability.DELAY,), (Capability.DELAY, Capability.REDELIVERY)])
@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_whatever_fails(
    broker: Any, clock: ManualClock, seed: int, abilities: tuple[Capability, ...]
) -> None:
    broker.lack(*abilities)
    rand = random.Random(seed)
    handled: set[bytes] = set()
    deliveries: Counter[bytes] = Counter()
    busy: set[tuple[int, str]] = set()
    overlaps: list[tuple[int, str]] = []

    def handler(number: int) -> Any:
        async def handle(delivery: Delivery[Any]) -> None:
            if delivery.key is not None:
                overlaps.extend(busy & {(number, delivery.key)})
                busy.add((number, delivery.key))
            try:
                deliveries[delivery.message.body] += 1
                await clock.sleep(rand.choice([0, 0, 0.1, 1.0]))
                if rand.random() < 0.3:
                    raise RuntimeError("at random")
                handled.add(delivery.message.body)
            finally:
                busy.discard((number, str(delivery.key)))

        return handle

    dead = await broker.dead_letters()
    options: dict[str, Any] = {"queue": "q", "concurrency": 3, "retry": RetryPolicy(max_deliveries=4), "clock": clock}
    sent = {b"%d" % number for number in range(100)}
    async with Dispatcher(broker, "t", handler(1), **options), Dispatcher(broker, "t", handler(2), **options) as second:
        for body in sent:
            await broker.put(body, key=rand.choice(["a", "b", "c", None]))
        await clock.advance(3.0)
        ending = asyncio.ensure_future(second.drain(0.5 if Capability.REDELIVERY in broker.capabilities else 1000.0))
        await clock.advance(400.0)
        await ending
        assert len(broker.told) >= len(sent)
    assert overlaps == []
    buried = {letter.message.body for letter in dead}
    assert handled | buried == sent
    assert max(deliveries.values()) <= 4
    assert clock.pending == 0


async def test_what_was_handled_is_gone_at_once(broker: Any, clock: ManualClock) -> None:
    """Its body may be large: it does not wait for the garbage collector."""
    seen: list[weakref.ref[Delivery[Any]]] = []

    async def handler(delivery: Delivery[Any]) -> None:
        seen.append(weakref.ref(delivery))
        if delivery.message.body == b"manual":
            await delivery.ack()

    gc.disable()
    try:
        async with Dispatcher(broker, "t", handler, clock=clock) as dispatcher:
            for body in (b"1", b"manual", b"last"):
                await broker.put(body)
                await settle()
            assert (len(seen), dispatcher.in_flight) == (3, 0)
            assert [ref() for ref in seen[:2]] == [None, None]
    finally:
        gc.enable()


def test_the_drivers_object_is_made_when_somebody_asks_and_once() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    delivery: Delivery[Any] = Delivery(topic="t", message=Message(), make_native=make)
    assert made == []
    assert delivery.native is delivery.native
    assert made == [delivery.native]
    assert Delivery(topic="t", message=Message(), native=1).native == 1
    assert Delivery(topic="t", message=Message()).native is None
