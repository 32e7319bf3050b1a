"""Redis as a broker: streams that keep messages until they are settled, or channels that forget them at once."""

from __future__ import annotations

import asyncio
import importlib
import uuid
from typing import TYPE_CHECKING, Any, Final

from pymicro.broker import Broker, Capability, Consumer, envelope
from pymicro.errors import BackendUnavailable, InvalidOption
from pymicro.message import Message
from pymicro.plugins import Build
from pymicro_broker_redis import _wire
from pymicro_broker_redis._options import RedisBrokerOptions, RedisSubscription

if TYPE_CHECKING:
    from pymicro_broker_redis._link import Link
    from pymicro_broker_redis._publisher import Publisher
    from pymicro_broker_redis._pubsub import ChannelConsumer
    from pymicro_broker_redis._streams import StreamConsumer

_STREAMS: Final = frozenset(Capability)
_PUBSUB: Final = frozenset({Capability.ORDERED})
_MODULES: Final = ("_link", "_publisher", "_group", "_streams", "_pubsub")


class RedisBroker(Broker):
    """Topics in Redis 6.2 or newer.

    In the mode `streams` a topic is a stream and a queue is a consumer group of it, which exists from its first
    consumer on and keeps messages while nobody consumes. A subscription without a queue has a group of its own, which
    ends with it, or `forget_after` after its process went silent. `publish` returns when the server has the message
    in its stream, and waits while the topic is full: nothing that a queue is not done with is dropped.

    In the mode `pubsub` a topic is a channel, with Go Micro's envelope, and a message reaches who listens at the time.

    Args:
        options: what users can set.
        build: addresses, TLS, clock, limits, time-outs.
    """

    name = "redis"

    def __init__(self, options: RedisBrokerOptions | None = None, build: Build | None = None) -> None:
        self._options = options or RedisBrokerOptions()
        self._build = build or Build()
        self._streams = self._options.mode == "streams"
        self.capabilities = _STREAMS if self._streams else _PUBSUB
        self._link: Link | None = None
        self._publisher: Publisher | None = None
        self._consumers: set[StreamConsumer | ChannelConsumer] = set()

    # publishing

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        self.require_open()
        assert self._publisher is not None
        self._build.limits.check(message)
        if self._streams:
            held = self._options.max_messages if keep else self._options.keep
            await self._publisher.publish(topic, _wire.entry_fields(message, key), held, timeout)
        else:
            await self._publisher.publish(topic, (envelope.write(topic, message, key),), 0, timeout)

    # subscribing

    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        link = self._linked()
        if prefetch < 1:
            raise InvalidOption(f"prefetch must be at least 1, not {prefetch}")
        if native is not None and not (self._streams and isinstance(native, RedisSubscription)):
            raise InvalidOption(f"{native!r} are no subscription options of the redis broker in this mode")
        if self._streams:
            await link.look()
            start = "0" if native is not None and native.start == "kept" else "$"
            return await self._join(link, topic, queue, prefetch, start)
        return await self._listen(link, topic, prefetch)

    async def _join(self, link: Link, topic: str, queue: str, prefetch: int, start: str) -> Consumer:
        from pymicro_broker_redis._group import Group
        from pymicro_broker_redis._streams import StreamConsumer

        build, options = self._build, self._options
        unique = uuid.uuid4().hex
        name = f"{_wire.QUEUE}{queue}" if queue else f"{_wire.OWN}{unique}"
        who = f"{build.identity.node_id}:{unique[:12]}"
        group = Group(link, options, topic, name, who, build.clock, build.timeout)
        lease = options.claim_after
        consumer = StreamConsumer(
            link, group, topic, prefetch, lease, build.clock, build.logger, build.timeout, self._consumers.discard
        )
        self._consumers.add(consumer)
        try:
            await consumer.start(start)
            self.require_open()
        except BaseException:
            await consumer.aclose()
            raise
        return consumer

    async def _listen(self, link: Link, topic: str, prefetch: int) -> Consumer:
        from pymicro_broker_redis._pubsub import ChannelConsumer

        build = self._build
        consumer = ChannelConsumer(
            link, topic, prefetch, build.limits, build.clock, build.logger, self._consumers.discard
        )
        self._consumers.add(consumer)
        try:
            async with asyncio.timeout(build.timeout):
                await consumer.start()
            self.require_open()
        except TimeoutError as error:
            await consumer.aclose()
            raise BackendUnavailable(f"no answer within {build.timeout} seconds", str(link.addresses)) from error
        except BaseException:
            await consumer.aclose()
            raise
        return consumer

    # life cycle

    def _linked(self) -> Link:
        self.require_open()
        assert self._link is not None
        return self._link

    async def _open(self) -> None:
        # The driver takes a while to import, and calls may be in flight in this event loop.
        for module in _MODULES:
            await asyncio.to_thread(importlib.import_module, f"pymicro_broker_redis.{module}")
        from pymicro_broker_redis._link import Link
        from pymicro_broker_redis._publisher import Publisher

        self._link = Link(self._options, self._build)
        self._publisher = Publisher(self._link, self._options, self._build.timeout / 2)

    async def _close(self) -> None:
        await asyncio.gather(*(consumer.aclose() for consumer in list(self._consumers)))
        if self._publisher is not None:
            await self._publisher.aclose()
        if self._link is not None:
            await self._link.aclose()
