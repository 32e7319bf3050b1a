"""The NATS broker: core NATS as Go Micro uses it, or JetStream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pymicro.broker import Broker, Capability, Consumer, envelope
from pymicro.errors import InvalidOption
from pymicro.message import Message
from pymicro.plugins import Build
from pymicro_broker_nats import _wire
from pymicro_broker_nats._options import NatsBrokerOptions, NatsSubscription
from pymicro_nats import check_subject, open_link

if TYPE_CHECKING:
    from pymicro_broker_nats._consumer import NatsConsumer
    from pymicro_broker_nats._jetstream import JetStream
    from pymicro_nats.connection import Link

_CORE = frozenset({Capability.ORDERED, Capability.QUEUES})
_JETSTREAM = _CORE | {Capability.AT_LEAST_ONCE, Capability.REDELIVERY, Capability.DELAY}


class NatsBroker(Broker):
    """Topics are subjects, messages the JSON of go-micro `broker/nats/nats.go`, so Go Micro's services take part.

    With core NATS (the default) a message goes to who is subscribed at that moment; `publish` returns when the server
    has it. With `jetstream` a stream keeps it until each queue has acknowledged it; `publish` returns when it is in
    the stream.

    It connects when it is first used. If no server answers then, the call raises `BackendUnavailable` at once; from
    then on a lost connection is made again in the background, and calls wait for it within their time-out.

    Args:
        options: see `NatsBrokerOptions`; None for the defaults.
        build: addresses, TLS, limits, clock, logger, and the time-out of `consume` and `settle`.
    """

    name = "nats"

    def __init__(self, options: NatsBrokerOptions | None = None, build: Build | None = None) -> None:
        self._options = options or NatsBrokerOptions()
        self._build = build or Build()
        self.capabilities = _JETSTREAM if self._options.jetstream else _CORE
        self._consumers: set[NatsConsumer] = set()
        self._link: Link | None = None
        self._jetstream: JetStream | None = None
        self._new_id = _wire.ids()

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        self.require_open()
        self._build.limits.check(message)
        check_subject(topic, "topic")
        payload = envelope.write(topic, message, key)
        if self._jetstream is not None:
            await self._jetstream.publish(
                topic, payload, message.headers.get(_wire.ID) or self._new_id(), timeout, keep=keep
            )
            return
        assert self._link is not None
        session = self._link.ready
        if session is not None:
            await session.publish(topic, payload, (timeout, f"publishing to {topic!r}"))
            return
        async with self._link.within(timeout, f"publishing to {topic!r}"):
            session = await self._link.session()
            await session.publish(topic, payload)

    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        """See `Broker.consume`.

        Raises:
            BackendUnavailable: no server answers.
            BackendRefused: credentials, permissions, or no JetStream.
            ConfigurationError: the topic cannot be a subject.
            InvalidOption: `native` is no `NatsSubscription`, or is one without JetStream; `prefetch` is below 1.
        """
        self.require_open()
        if native is not None and not (isinstance(native, NatsSubscription) and self._options.jetstream):
            raise InvalidOption(f"native options are a NatsSubscription, and for JetStream only, not {native!r}")
        if prefetch < 1:
            raise InvalidOption(f"prefetch must be at least 1, not {prefetch}")
        check_subject(topic, "topic")
        _wire.check_queue(queue)
        consumer = self._new_consumer(topic, queue, prefetch, native)
        self._consumers.add(consumer)
        try:
            await consumer.start()
            self.require_open()
        except BaseException:
            await consumer.aclose()
            raise
        return consumer

    def _new_consumer(self, topic: str, queue: str, prefetch: int, native: NatsSubscription | None) -> NatsConsumer:
        from pymicro_broker_nats._consumer import Source
        from pymicro_broker_nats._core import CoreConsumer
        from pymicro_broker_nats._pull import PullConsumer

        assert self._link is not None
        source = Source(
            link=self._link,
            build=self._build,
            topic=topic,
            queue=queue,
            prefetch=prefetch,
            closing=self._consumers.discard,
        )
        if self._jetstream is None:
            return CoreConsumer(source, self._options)
        return PullConsumer(source, self._jetstream, native or NatsSubscription())

    async def _open(self) -> None:
        self._link = await open_link(self._options, self._build)
        from pymicro_broker_nats._jetstream import JetStream

        if self._options.jetstream:
            self._jetstream = JetStream(self._link, self._options, self._build.clock)

    async def _close(self) -> None:
        await asyncio.gather(*(consumer.aclose() for consumer in list(self._consumers)))
        if self._link is not None:
            await self._link.aclose()
