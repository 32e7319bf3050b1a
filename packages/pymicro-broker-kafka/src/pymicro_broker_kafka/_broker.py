"""Topics on Kafka."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pymicro.broker import Broker, Capability, Consumer
from pymicro.errors import ConnectionFailed, InvalidOption
from pymicro.message import Message
from pymicro.plugins import Build
from pymicro_broker_kafka import _wire
from pymicro_broker_kafka._options import KafkaBrokerOptions, KafkaSubscription

if TYPE_CHECKING:
    from pymicro_broker_kafka._client import Settings
    from pymicro_broker_kafka._consumer import KafkaConsumer
    from pymicro_broker_kafka._publisher import Publisher, Topics


class KafkaBroker(Broker):
    """Topics are topics, queues are consumer groups, messages Go Micro's envelope; a key chooses the partition.

    A queue begins with its first consumer and stays. What was handed out, and how often, is committed before it is
    handed out, so counts survive any crash; an offset is committed when all before it is settled. A subscription
    without a queue reads all partitions and ends with its process.

    Clients of the driver are made when they are needed: one that publishes, one that looks for topics, and one for
    each subscription.

    Args:
        options: see `KafkaBrokerOptions`; None for the defaults.
        build: addresses, TLS, limits, logger, time-out.

    Raises:
        ConfigurationError: an address has no form that is known.
    """

    name = "kafka"
    capabilities = frozenset({Capability.AT_LEAST_ONCE, Capability.ORDERED, Capability.QUEUES, Capability.REDELIVERY})

    def __init__(self, options: KafkaBrokerOptions | None = None, build: Build | None = None) -> None:
        self._options = options or KafkaBrokerOptions()
        self._build = build or Build()
        self._consumers: set[KafkaConsumer] = set()
        self._looking: set[asyncio.Task[None]] = set()
        self._settings: Settings | None = None
        self._topics: Topics | None = None
        self._publisher: Publisher | None = None

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        self.require_open()
        _wire.check_topic(topic)
        self._build.limits.check(message)
        value, name = _wire.write(topic, message, key)
        assert self._publisher is not None
        await self._publisher.publish(topic, value, name, timeout)

    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        self.require_open()
        if native is not None and not isinstance(native, KafkaSubscription):
            raise InvalidOption(f"subscription options of Kafka are a KafkaSubscription, not {native!r}")
        if prefetch < 1:
            raise InvalidOption(f"prefetch must be at least 1, not {prefetch}")
        _wire.check_topic(topic)
        return await self._attach(topic, queue, prefetch, native or KafkaSubscription())

    async def _attach(self, topic: str, queue: str, prefetch: int, native: KafkaSubscription) -> Consumer:
        from pymicro_broker_kafka._consumer import KafkaConsumer, Source
        from pymicro_broker_kafka._group import QueueConsumer

        assert self._settings is not None
        assert self._topics is not None
        await self._settings.probe()
        self._topics.forget(topic)
        await self._topics.ensure(topic)
        self.require_open()
        source = Source(
            settings=self._settings,
            build=self._build,
            topic=topic,
            queue=queue,
            prefetch=prefetch,
            kept=native.start == "kept",
            closing=self._consumers.discard,
            reconnected=self._look_for,
        )
        consumer = (QueueConsumer if queue else KafkaConsumer)(source)
        self._consumers.add(consumer)
        try:
            await consumer.start()
            self.require_open()
        except BaseException:
            await consumer.aclose()
            raise
        return consumer

    def _look_for(self, topic: str) -> None:
        """Have the topic again if the server, which was away, lost it."""
        if self._topics is None or not self.is_open:
            return
        self._topics.forget(topic)
        task = asyncio.get_running_loop().create_task(self._have(topic), name=f"kafka topic {topic}")
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _have(self, topic: str) -> None:
        assert self._topics is not None
        with suppress(ConnectionFailed):  # it will be looked for when the connection comes back, or by who publishes
            await self._topics.ensure(topic)

    async def _open(self) -> None:
        """Read the TLS files. Connections are made when they are needed.

        Raises:
            ConfigurationError: a file is missing, or is not what it should be.
        """
        # The driver takes a while to import, and calls may be in flight in this event loop.
        for module in ("_publisher", "_group"):
            await asyncio.to_thread(importlib.import_module, f"pymicro_broker_kafka.{module}")
        from pymicro_broker_kafka._client import Settings
        from pymicro_broker_kafka._publisher import Publisher, Topics

        self._settings = Settings(self._options, self._build)
        self._settings.read_tls()
        self._topics = Topics(self._settings)
        self._publisher = Publisher(self._settings, self._topics)

    async def _close(self) -> None:
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*(consumer.aclose() for consumer in [*self._consumers]))
        if self._publisher is not None and self._topics is not None:
            await asyncio.gather(self._publisher.aclose(), self._topics.aclose())
        if self._looking:
            await asyncio.wait(self._looking)
