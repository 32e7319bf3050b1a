"""Go Micro's default broker: publishers post messages to the processes that subscribed, found through the registry."""

from __future__ import annotations

import asyncio
import importlib
import uuid
from typing import TYPE_CHECKING, Any, Final

from pymicro.broker import Broker, Capability, Consumer, envelope
from pymicro.errors import BackendUnavailable, Closed, ConfigurationError, InvalidOption
from pymicro.message import Message
from pymicro.plugins import Build
from pymicro.plugins.toolkit import advertised
from pymicro.record import Node
from pymicro.registry import Entry, Registry, RegistryCache
from pymicro_broker_http import _wire
from pymicro_broker_http._consumer import HttpConsumer, Verdict
from pymicro_broker_http._faults import Faults
from pymicro_broker_http._options import HttpBrokerOptions
from pymicro_broker_http._publishing import Member, Publishing

if TYPE_CHECKING:
    from pymicro_broker_http._client import Client
    from pymicro_broker_http._listener import Listener

#: Where subscriptions listen when nobody says, as in Go Micro.
_DEFAULT_ADDRESS: Final = "127.0.0.1:0"


class HttpBroker(Broker):
    """Events from process to process, with no server between them. Follows go-micro `broker/http.go`.

    Each subscription is registered as a node of the service `micro.http.broker`; a publisher looks them up and posts
    the message to each subscription without a queue, and to one of each queue. A message is nowhere but in the memory
    of those who took it, so `AT_LEAST_ONCE` is not declared, and a handler that fails is called again in its process.

    `publish` returns when the message is in the memory of every subscriber that is there. A subscription without a
    queue ends with its process, so one that cannot be reached is logged, left out for a while and no error. A queue
    stands for work: if the registry has subscribers of it and none takes the message, `publish` raises
    `BackendUnavailable`, and nothing is sent later behind the publisher's back. Go Micro's broker tells nobody then,
    keeps up to 64 such messages of a topic and sends them along with later ones. A message whose connection broke
    before the answer is posted once more, so it may arrive twice.

    Messages of one key go to the same subscriber of a queue for as long as the queue has the same subscribers; that is
    what `ORDERED` means here.

    Args:
        options: see `HttpBrokerOptions`; None for the defaults.
        build: limits, TLS, clock, logger, address to listen at, and the registry.
        registry: the registry, open before this and closed after it; None for the one that `build` has.
    """

    name = "http"
    capabilities = frozenset({Capability.ORDERED, Capability.QUEUES})

    def __init__(
        self,
        options: HttpBrokerOptions | None = None,
        build: Build | None = None,
        *,
        registry: Registry | None = None,
    ) -> None:
        self._options = options or HttpBrokerOptions()
        self._build = build or Build()
        self._registry = registry
        self._consumers: dict[str, HttpConsumer] = {}
        self._faults = Faults(self._build.clock, self._build.logger)
        self._audiences: dict[str, _wire.Audience] = {}
        #: When the subscribers that the registry names count as all there are; None before anybody asked.
        self._complete: float | None = None
        self._subscribers: RegistryCache | None = None
        self._client: Client | None = None
        self._listener: Listener | None = None
        self._own_address: str | None = None
        self._starting = asyncio.Lock()

    # publishing

    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        self.require_open()
        self._build.limits.check(message)
        headers = message.headers
        if envelope.TOPIC not in headers:
            headers = headers.extend(((envelope.TOPIC, topic),))
        message = Message(headers, bytes(message.body))
        assert self._client is not None
        publishing = Publishing(topic, message, key, self._client, self._faults, timeout)
        await self._look_up(timeout)
        await publishing.deliver(*self._audience(topic))

    async def _look_up(self, timeout: float) -> None:
        """Know who is subscribed, as far as the registry does.

        Raises:
            BackendUnavailable: nobody knows.
        """
        assert self._subscribers is not None
        clock = self._build.clock
        if self._complete is None:
            self._complete = clock.monotonic() + self._options.discovery_time
        complete = self._complete
        entry = self._subscribers.peek(_wire.SERVICE)
        if entry is None or clock.monotonic() < complete:
            try:
                async with asyncio.timeout(timeout):
                    entry = await self._subscribers.lookup(_wire.SERVICE)
                    await clock.sleep(min(max(0.0, complete - clock.monotonic()), timeout / 2))
            except TimeoutError as error:
                raise BackendUnavailable(f"the registry did not answer within {timeout:g} s") from error
        if entry.error is not None and not entry.services:
            raise BackendUnavailable(f"nobody knows who is subscribed: {entry.error}") from entry.error

    def _changed(self, entry: Entry) -> None:
        self._audiences = _wire.audiences(entry.services) if entry.live else {}
        self._complete = self._complete if entry.live else None
        self._faults.keep({node.address for record in entry.services for node in record.nodes})

    def _audience(self, topic: str) -> tuple[list[Member], list[tuple[str, list[Member]]]]:
        """Subscriptions without a queue, and those of each queue. Those of this process are known without delay."""
        known = self._audiences.get(topic) or _wire.Audience()
        each: list[Member] = [node for node in known.each if self._is_foreign(node)]
        queues: dict[str, list[Member]] = {
            queue: [node for node in nodes if self._is_foreign(node)] for queue, nodes in known.queues.items()
        }
        for consumer in self._consumers.values():
            if consumer.topic == topic and consumer.takes:
                (queues.setdefault(consumer.queue, []) if consumer.queue else each).append(consumer)
        return each, [(queue, members) for queue, members in queues.items() if members]

    def _is_foreign(self, node: Node) -> bool:
        return node.address != self._own_address

    # subscribing

    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        """See `Broker.consume`.

        Raises:
            BackendUnavailable: the registry cannot be told.
            BackendRefused: the registry said no.
            ConfigurationError: the registry cannot hold the topic, the queue has a name that means something else, or
                it is not possible to listen at the address.
        """
        self.require_open()
        if native is not None:
            raise InvalidOption(f"the http broker has no subscription options, so {native!r} is of another broker")
        if prefetch < 1:
            raise InvalidOption(f"prefetch must be at least 1, not {prefetch}")
        if queue == _wire.BROADCAST:
            raise ConfigurationError(f"no queue can be called {queue!r}: it stands for subscriptions without one")
        listener = await self._listen()
        id = f"{topic}-{uuid.uuid4()}"
        build = self._build
        consumer = HttpConsumer(id, topic, queue, prefetch, self._options, build.clock, build.logger, self._forget)
        self._consumers[id] = consumer
        try:
            await self._register(consumer, listener)
            await asyncio.sleep(0)  # watches in this event loop hear of it before the caller goes on
            self.require_open()
        except BaseException:
            await consumer.aclose()
            raise
        return consumer

    async def _listen(self) -> Listener:
        """The listener of all subscriptions, from the first one on."""
        async with self._starting:
            self.require_open()
            if self._listener is None:
                await asyncio.to_thread(importlib.import_module, "pymicro_broker_http._listener")
                from pymicro_broker_http._listener import Listener

                addresses = self._build.addresses or (_DEFAULT_ADDRESS,)
                if len(addresses) > 1:
                    raise ConfigurationError(f"the http broker listens at one address, not at {', '.join(addresses)}")
                listener = Listener(self._take, self._options, self._build)
                try:
                    await listener.start(addresses[0])
                    self.require_open()
                except BaseException:
                    await listener.aclose()
                    raise
                self._listener = listener
                self._own_address = advertised(listener.address)
            return self._listener

    async def _register(self, consumer: HttpConsumer, listener: Listener) -> None:
        assert self._registry is not None
        assert self._own_address is not None
        record = _wire.record(consumer.id, consumer.topic, consumer.queue, self._own_address, secure=listener.secure)
        try:
            registration = await self._registry.register(record, ttl=_wire.TTL)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"topic {consumer.topic!r} cannot be subscribed to over the http broker: the registry "
                f"{self._registry.name!r} would hold it as the node {consumer.id!r}. {error}"
            ) from error
        consumer.registered(registration)
        if not consumer.takes:
            raise Closed("the broker was closed")
        if registration.state != "registered":
            raise BackendUnavailable(
                f"the registry {self._registry.name!r} cannot be told of the subscription: {registration.error}"
            )

    async def _take(self, id: str, message: Message, key: str | None, if_idle: bool) -> Verdict:
        consumer = self._consumers.get(id)
        if consumer is None:
            return "gone"
        # Half of what an operation may take, so that the publisher hears of it within its own time-out.
        return await consumer.offer(message, key, self._build.timeout / 2, if_idle=if_idle)

    def _forget(self, consumer: HttpConsumer) -> None:
        self._consumers.pop(consumer.id, None)

    # life cycle

    async def _open(self) -> None:
        self._registry = self._registry or self._build.get("registry")
        assert self._registry is not None
        # aiohttp takes a tenth of a second to import, and calls may be in flight in this event loop.
        await asyncio.to_thread(importlib.import_module, "pymicro_broker_http._client")
        from pymicro_broker_http._client import Client

        self._client = Client(self._build)
        self._subscribers = RegistryCache(self._registry, clock=self._build.clock, logger=self._build.logger)
        self._subscribers.on_change(self._changed)
        await self._subscribers.__aenter__()

    async def _close(self) -> None:
        await asyncio.gather(*(consumer.aclose() for consumer in list(self._consumers.values())))
        async with self._starting:
            if self._listener is not None:
                await self._listener.aclose()
        if self._subscribers is not None:
            await self._subscribers.aclose()
        if self._client is not None:
            await self._client.aclose()
