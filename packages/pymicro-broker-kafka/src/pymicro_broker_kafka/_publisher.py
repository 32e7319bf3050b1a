"""Publishing, and the making of topics."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, Final

from pymicro.broker import envelope
from pymicro.errors import BackendUnavailable, PymicroError
from pymicro_broker_kafka._bridge import in_thread
from pymicro_broker_kafka._client import Net, Settings
from pymicro_broker_kafka._driver import KafkaAdminClient, KafkaProducer
from pymicro_broker_kafka._driver import errors as driver
from pymicro_broker_kafka._errors import mapped
from pymicro_broker_kafka._sending import Answers, GatheringClient, Sent

_AGAIN: Final = 0.1  # seconds before a topic or a connection is tried again
_SLOW: Final = 1.0  # seconds without an answer after which it is looked whether the topic is still there
_CLOSE: Final = 1.0  # seconds for what is on its way when the broker closes
_BATCH: Final = 256 * 1024  # bytes for one partition in one request, below what servers take for one
_OVERHEAD: Final = 4096  # bytes of a record besides its value and key


class Topics:
    """Looks whether topics are there, and makes them.

    Args:
        settings: how to reach the servers, and how many partitions and replicas a new topic has.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: set[str] = set()
        self._admin: Any = None
        self._lock = asyncio.Lock()

    async def ensure(self, topic: str) -> None:
        """Have the topic.

        Raises:
            BackendUnavailable, BackendRefused: it is not there and cannot be made.
        """
        if topic in self._known:
            return
        async with self._lock:
            if self._admin is None:
                await self._settings.probe()
                self._admin = await self._call(self._make, undo=_close_admin)
            await self._call(self._have, topic)
            self._known.add(topic)

    def knows(self, topic: str) -> bool:
        """Whether it is there, as far as is known."""
        return topic in self._known

    def forget(self, topic: str) -> None:
        """Look again next time: the server may have lost it."""
        self._known.discard(topic)

    async def _call(self, *call: Any, undo: Any = None) -> Any:
        try:
            return await in_thread(*call, undo=undo)
        except PymicroError:
            raise
        except Exception as error:
            raise mapped(error, self._settings.address) from error

    def _make(self) -> Any:
        return Net(self._settings).make(KafkaAdminClient)

    def _have(self, topic: str) -> None:
        options, admin = self._settings.options, self._admin
        found = admin.describe_topics([topic])
        if found and found[0]["error_code"] == 0:
            return
        wanted = {topic: {"num_partitions": options.partitions, "replication_factor": options.replicas}}
        with suppress(driver.TopicAlreadyExistsError):  # somebody was quicker
            admin.create_topics(wanted, timeout_ms=self._settings.patience)
        admin.wait_for_topics([topic], timeout_ms=self._settings.patience)

    async def aclose(self) -> None:
        """End its connection."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await in_thread(_close_admin, admin)


def _close_admin(admin: Any) -> None:
    admin.close()


class Publisher:
    """Publishes with one client of the driver, made when it is first needed.

    One request is on its way to a server at a time, and carries all that gathered: so messages keep their order when
    one is repeated.

    Args:
        settings: how to reach the servers.
        topics: makes those that are missing.
    """

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics
        self._loop = asyncio.get_running_loop()
        self._net = Net(settings, partial(GatheringClient, self._loop))
        self._answers = Answers(self._loop, self._gone)
        self._producer: Any = None
        self._lock = asyncio.Lock()
        self._next = 0
        self._bytes = 0
        self._room = asyncio.Event()

    async def publish(self, topic: str, value: bytes, key: bytes | None, timeout: float) -> None:
        """Publish, and wait until all replicas that are in step have it.

        Raises:
            BackendUnavailable, BackendRefused, TooLarge: as in `Broker.publish`.
        """
        now = self._loop.time()
        until = now + timeout
        size = len(value) + len(key or b"") + _OVERHEAD
        if partitions := self._open_to(topic, size):
            sent = self._send(self._producer, topic, partitions, value, key, size)
        else:
            sent = await self._begin(topic, value, key, size, timeout)
            now = self._loop.time()
        while not await self._answers.wait(sent, min(now + _SLOW, until)):
            now = self._loop.time()
            if now >= until:
                raise self._late(timeout)
            self._topics.forget(topic)
            with suppress(BackendUnavailable, TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._topics.ensure(topic)
        if sent.error is not None:
            raise mapped(sent.error, self._settings.address) from sent.error

    def _open_to(self, topic: str, size: int) -> set[int] | None:
        """The partitions, if nothing has to be waited for, which costs; so it is nearly always."""
        if self._producer is None or not self._topics.knows(topic) or not self._has_room(size):
            return None
        return self._partitions(topic)

    def _partitions(self, topic: str) -> set[int] | None:
        known: set[int] | None = self._net.cluster.partitions_for_topic(topic)
        return known

    def _has_room(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= self._settings.options.buffer

    async def _begin(self, topic: str, value: bytes, key: bytes | None, size: int, timeout: float) -> Sent:
        problem: PymicroError | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        producer = await self._prepare(topic, size)
                        return self._send(producer, topic, self._partitions(topic) or {0}, value, key, size)
                    except BackendUnavailable as error:
                        if self._producer is None:
                            raise
                        problem = error
                    await asyncio.sleep(_AGAIN)
        except TimeoutError as late:
            raise self._late(timeout, problem) from late

    def _late(self, timeout: float, problem: PymicroError | None = None) -> BackendUnavailable:
        why = f": {problem}" if problem else ""
        return BackendUnavailable(f"not confirmed within {timeout:.3g} s{why}", self._settings.address)

    async def _prepare(self, topic: str, size: int) -> Any:
        """The driver's producer, when it would not have to wait."""
        await self._topics.ensure(topic)
        producer = await self._ready()
        if not self._partitions(topic):  # the driver would wait, and the event loop with it
            try:
                await in_thread(producer.partitions_for, topic)
            except Exception as error:
                raise mapped(error, self._settings.address) from error
        while not self._has_room(size):
            self._room.clear()
            await self._room.wait()
        return producer

    def _send(
        self, producer: Any, topic: str, partitions: set[int], value: bytes, key: bytes | None, size: int
    ) -> Sent:
        partition = None
        if key is None:
            partition = sorted(partitions)[self._next % len(partitions)]
            self._next += 1
        try:
            future = producer.send(topic, value, key, partition=partition)
        except Exception as error:
            raise mapped(error, self._settings.address) from error
        self._bytes += size
        return self._answers.follow(future, size)

    def _gone(self, sent: Sent) -> None:
        self._bytes -= sent.size
        self._room.set()

    async def _ready(self) -> Any:
        async with self._lock:
            if self._producer is None:
                await self._settings.probe()
                try:
                    self._producer = await in_thread(self._make, undo=_close_producer)
                except PymicroError:
                    raise
                except Exception as error:
                    raise mapped(error, self._settings.address) from error
            return self._producer

    def _make(self) -> Any:
        build = self._settings.build
        request = round(max(1.0, build.timeout) * 1000)
        return self._net.make(
            KafkaProducer,
            acks="all",
            enable_idempotence=False,
            max_in_flight_requests_per_connection=1,
            batch_size=_BATCH,
            delivery_timeout_ms=request + 1000,
            max_block_ms=request,
            max_request_size=envelope.longest(build.limits) + _OVERHEAD,
            metrics_enabled=False,
        )

    async def aclose(self) -> None:
        """Give what is on its way a moment, and end."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await in_thread(_close_producer, producer)


def _close_producer(producer: Any) -> None:
    try:
        producer.flush(timeout=_CLOSE)
    except driver.KafkaTimeoutError:
        producer._sender.force_close()  # else `close`, which flushes too, fails and leaves everything open
    with suppress(driver.KafkaTimeoutError):  # its thread is busy, and ends by itself
        producer.close(timeout=_CLOSE)
