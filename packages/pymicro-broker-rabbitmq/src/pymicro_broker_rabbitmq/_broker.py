"""Topics on RabbitMQ: as Go Micro has them, or durable."""

from __future__ import annotations

import asyncio
from typing import Any

from pymicro.broker import Broker, Capability, Consumer
from pymicro.errors import ConfigurationError, InvalidOption
from pymicro.message import Message
from pymicro.plugins import Build
from pymicro_broker_rabbitmq._consumer import RabbitmqConsumer
from pymicro_broker_rabbitmq._options import RabbitmqBrokerOptions, RabbitmqSubscription
from pymicro_broker_rabbitmq._publisher import Publisher
from pymicro_broker_rabbitmq._topology import Topology
from pymicro_rabbitmq import check_key
from pymicro_rabbitmq.connection import Access

_GO = frozenset({Capability.ORDERED, Capability.QUEUES})
_DURABLE = _GO | {Capability.AT_LEAST_ONCE, Capability.REDELIVERY}


class RabbitmqBroker(Broker):
    """Topics are routing keys of one topic exchange; each queue of subscribers is a queue bound to it.

    Without `durable` it is what Go Micro's `broker/rabbitmq` declares: messages are gone with the server, and queues
    with their last consumer. With it, queues are quorum queues, which keep messages through crashes and count
    deliveries. A subscription without a queue has one of its own, which ends with its connection, in both.

    Publishing and consuming have a connection each, opened when first needed: a server that is short of memory or
    disk stops reading from connections that publish, and acknowledgements must get through then.

    A message is handed out again by the server without delay, so `DELAY` is not declared and the core holds what it
    retries later. It stays on the server meanwhile, and counts to `prefetch`.

    Args:
        options: see `RabbitmqBrokerOptions`; None for the defaults.
        build: addresses, TLS, limits, clock, logger, time-out.

    Raises:
        ConfigurationError: an address has no form that is known.
    """

    name = "rabbitmq"

    def __init__(self, options: RabbitmqBrokerOptions | None = None, build: Build | None = None) -> None:
        options = options or RabbitmqBrokerOptions()
        self._build = build = build or Build()
        self._topology = Topology(options)
        self.capabilities = _DURABLE if options.durable else _GO
        self._access = Access("broker", options, build)
        self._outgoing = self._access.link("publishing")
        self._incoming = self._access.link("consuming")
        self._publisher = Publisher(self._outgoing, self._topology)
        self._consumers: set[RabbitmqConsumer] = set()

    async def _open(self) -> None:
        """Read the TLS files. Connections are made when they are needed.

        Raises:
            ConfigurationError: a file is missing, or is not what it should be.
        """
        self._access.open()

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        self.require_open()
        check_key("topic", topic)
        self._build.limits.check(message)
        await self._publisher.publish(topic, message, key, timeout, keep=keep and self._topology.durable)

    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        self.require_open()
        if native is not None and not isinstance(native, RabbitmqSubscription):
            raise InvalidOption(f"subscription options of RabbitMQ are a RabbitmqSubscription, not {native!r}")
        if prefetch < 1:
            raise InvalidOption(f"prefetch must be at least 1, not {prefetch}")
        check_key("topic", topic)
        native = native or RabbitmqSubscription()
        planned = self._topology.queue(topic, queue, native)
        self._refuse_sharing(planned.name, topic)
        consumer = RabbitmqConsumer(
            self._incoming,
            self._topology,
            topic,
            planned,
            prefetch,
            native.consumer_arguments,
            self._build,
            self._consumers.discard,
        )
        self._consumers.add(consumer)
        try:
            await consumer.attach()
        except BaseException:
            await consumer.aclose()
            raise
        return consumer

    def _refuse_sharing(self, name: str, topic: str) -> None:
        for other in self._consumers:
            if name and other.queue.name == name and other.topic != topic:
                raise ConfigurationError(
                    f"the topics {other.topic!r} and {topic!r} would share the queue {name!r} on the server, and each "
                    "subscriber would get messages of both: give each topic a queue name of its own, or use "
                    "--broker_rabbitmq_durable, where it has one"
                )

    async def _close(self) -> None:
        await asyncio.gather(*(consumer.aclose() for consumer in [*self._consumers]))
        await asyncio.gather(self._outgoing.aclose(), self._incoming.aclose())
