"""Brokers that break one promise each; a case that is named must find it."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

import pytest

from pymicro.broker import Ack, Broker, Capability, Consumer, Delivery, MemoryBroker, MemoryTopics, Settlement
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build
from pymicro_testing import BrokerConformance

CaseFails = Callable[[object, str], Awaitable[None]]


class SoundConsumer(Consumer):
    """Passes everything on to a sound consumer; broken ones override a method."""

    def __init__(self, inner: Consumer) -> None:
        self.inner = inner

    @property
    def attached(self) -> bool:
        return self.inner.attached

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        return await self.inner.receive(max)

    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        await self.inner.settle(delivery, settlement)

    async def extend(self, delivery: Delivery[Any]) -> None:
        await self.inner.extend(delivery)

    async def detach(self) -> None:
        await self.inner.detach()

    async def aclose(self) -> None:
        await self.inner.aclose()


class SoundBroker(Broker):
    """Passes everything on to a memory broker, with consumers of another class."""

    capabilities = frozenset({Capability.ORDERED, Capability.QUEUES, Capability.REDELIVERY, Capability.DELAY})
    consumer: ClassVar[type[SoundConsumer]] = SoundConsumer

    def __init__(self, build: Build, topics: MemoryTopics) -> None:
        self.inner = MemoryBroker(None, build, topics=topics)

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        await self.inner.publish(topic, message, key=key, keep=keep, timeout=timeout)

    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        return self.consumer(await self.inner.consume(topic, queue=queue, prefetch=prefetch, native=native))

    async def _open(self) -> None:
        await self.inner.__aenter__()

    async def _close(self) -> None:
        await self.inner.aclose()


class Loses(SoundBroker):
    def __init__(self, build: Build, topics: MemoryTopics) -> None:
        super().__init__(build, topics)
        self.count = itertools.count(1)

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        if next(self.count) % 50:
            await super().publish(topic, message, key=key, keep=keep, timeout=timeout)


class Duplicates(Loses):
    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        for _ in range(1 if next(self.count) % 10 else 2):
            await self.inner.publish(topic, message, key=key, keep=keep, timeout=timeout)


class Reorders(Loses):
    held: Message | None = None

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        if key == "odd" and next(self.count) % 50 == 0:
            self.held = message
            return
        await self.inner.publish(topic, message, key=key, keep=keep, timeout=timeout)
        if self.held is not None and key == "odd":
            held, self.held = self.held, None
            await self.inner.publish(topic, held, key=key, timeout=timeout)


class SharesState(SoundBroker):
    everybody: ClassVar[weakref.WeakSet[Consumer]] = weakref.WeakSet()

    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        consumer = await super().consume(topic, queue=queue, prefetch=prefetch, native=native)
        self.everybody.add(consumer)
        return consumer

    async def _close(self) -> None:
        for consumer in list(self.everybody):
            await consumer.aclose()
        await super()._close()


class MatchesWildcards(SoundBroker):
    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        if topic.endswith((".*", ".>")):
            topic = topic[:-1] + "a.b"
        return await super().consume(topic, queue=queue, prefetch=prefetch, native=native)


class DropsKeys(SoundBroker):
    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        await super().publish(topic, message, keep=keep, timeout=timeout)


class MangleHeaders(SoundBroker):
    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        plain = {name: value.encode("ascii", "replace").decode() for name, value in message.headers.items()}
        await super().publish(topic, Message(Headers(plain), message.body), key=key, timeout=timeout)


class IgnoresQueues(SoundBroker):
    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        return await super().consume(topic, prefetch=prefetch, native=native)


class IgnoresPrefetch(SoundBroker):
    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        return await super().consume(topic, queue=queue, prefetch=prefetch + 1, native=native)


class LosesOnCancel(SoundConsumer):
    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        received = await super().receive(max)
        await asyncio.sleep(0)
        return received


class IgnoresCancellation(SoundConsumer):
    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        receiving = asyncio.ensure_future(self.inner.receive(max))
        while not receiving.done():
            try:
                await asyncio.wait({receiving})
            except asyncio.CancelledError:
                continue
        return receiving.result()


class IgnoresClose(SoundConsumer):
    async def aclose(self) -> None:
        await asyncio.sleep(0)


class IgnoresDetach(SoundConsumer):
    async def detach(self) -> None:
        await asyncio.sleep(0)


class KeepsWhatItHeld(SoundConsumer):
    """Settles what nobody settled when it is closed."""

    def __init__(self, inner: Consumer) -> None:
        super().__init__(inner)
        self.held: list[Delivery[Any]] = []

    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        received = await super().receive(max)
        self.held += received
        return received

    async def aclose(self) -> None:
        for delivery in self.held:
            await self.inner.settle(delivery, Ack())
        await super().aclose()


class ForgetsTheCount(SoundConsumer):
    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        received = await super().receive(max)
        for delivery in received:
            delivery.count = 1
        return received


class NeverSettles(SoundConsumer):
    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        await asyncio.sleep(0)


class AcknowledgesRetries(SoundConsumer):
    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        await super().settle(delivery, Ack())


class GivesTooMany(SoundConsumer):
    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        return await super().receive(max + 1)


class Suite(BrokerConformance):
    """The cases on a broken broker."""

    patience = 0.3
    quiet = 0.02
    delay = 0.1

    def __init__(self, broken: type[Any]) -> None:
        self.broken = broken
        self.memory = MemoryTopics()

    def make(self, build: Build) -> Broker:
        if issubclass(self.broken, SoundBroker):
            return self.broken(build, self.memory)
        broker = SoundBroker(build, self.memory)
        broker.consumer = self.broken  # type: ignore[misc]  # this instance's alone
        return broker


class Patient(Suite):
    """For sound ones, which may be slow on a busy machine."""

    patience = 5.0


BROKEN: list[tuple[type[Any], str]] = [
    (Loses, "test_many_may_publish_at_once"),
    (Duplicates, "test_consumers_without_a_queue_get_everything_once"),
    (Reorders, "test_order_holds_within_a_key"),
    (SharesState, "test_closing_one_instance_leaves_the_other_alone"),
    (MatchesWildcards, "test_awkward_topics_work_or_are_refused"),
    (DropsKeys, "test_keys_are_kept"),
    (MangleHeaders, "test_headers_arrive_as_they_are"),
    (IgnoresQueues, "test_consumers_of_a_queue_share_its_messages"),
    (IgnoresDetach, "test_detaching_ends_a_receive"),
    (IgnoresPrefetch, "test_no_more_than_prefetch_are_unsettled"),
    (LosesOnCancel, "test_a_cancelled_receive_loses_nothing"),
    (IgnoresCancellation, "test_a_cancelled_receive_loses_nothing"),
    (IgnoresClose, "test_closing_a_consumer_ends_its_receive"),
    (IgnoresClose, "test_what_a_closed_consumer_held_goes_to_another"),
    (KeepsWhatItHeld, "test_what_a_closed_consumer_held_goes_to_another"),
    (ForgetsTheCount, "test_a_retried_message_comes_again_and_is_counted"),
    (ForgetsTheCount, "test_the_count_survives_the_consumer"),
    (NeverSettles, "test_an_acknowledged_message_is_done"),
    (AcknowledgesRetries, "test_a_retry_waits_for_its_delay_and_holds_up_nobody"),
    (GivesTooMany, "test_receive_gives_no_more_than_it_was_asked_for"),
]


@pytest.mark.parametrize(("broken", "case"), BROKEN)
@pytest.mark.usefixtures("rubbish_removed")
async def test_the_named_case_finds_it(broken: type[Any], case: str, case_fails: CaseFails) -> None:
    await case_fails(Suite(broken), case)


@pytest.mark.parametrize("case", sorted({case for _, case in BROKEN}))
async def test_the_same_case_passes_a_sound_one(case: str) -> None:
    await getattr(Patient(SoundBroker), case)()
