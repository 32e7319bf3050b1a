"""Publishing, and the making of topics."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from pymicro.broker import envelope
from pymicro.errors import BackendUnavailable, PymicroError
from pymicro_broker_kafka._bridge import future_of, in_thread
from pymicro_broker_kafka._client import Net, Settings
from pymicro_broker_kafka._driver import KafkaAdminClient, KafkaProducer
from pymicro_broker_kafka._driver import errors as driver
from pymicro_broker_kafka._errors import mapped

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
        self._net = Net(settings)
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
        problem: PymicroError | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await self._topics.ensure(topic)
                        sent = await self._send(topic, value, key)
                        break
                    except BackendUnavailable as error:
                        if self._producer is None:
                            raise
                        problem = error
                    await asyncio.sleep(_AGAIN)
                await self._answer(sent, topic)
        except TimeoutError as late:
            why = f": {problem}" if problem else ""
            raise BackendUnavailable(f"not confirmed within {timeout:.3g} s{why}", self._settings.address) from late

    async def _answer(self, sent: asyncio.Future[Any], topic: str) -> None:
        while not (await asyncio.wait({sent}, timeout=_SLOW))[0]:
            self._topics.forget(topic)
            try:
                await self._topics.ensure(topic)
            except BackendUnavailable:
                continue
        if (error := sent.exception()) is not None:
            raise mapped(error, self._settings.address) from error

    async def _send(self, topic: str, value: bytes, key: bytes | None) -> asyncio.Future[Any]:
        producer = await self._ready()
        partitions = self._net.cluster.partitions_for_topic(topic)
        try:
            if not partitions:  # the driver would wait for them, and the event loop with it
                partitions = await in_thread(producer.partitions_for, topic)
            size = len(value) + len(key or b"") + _OVERHEAD
            while self._bytes and self._bytes + size > self._settings.options.buffer:
                self._room.clear()
                await self._room.wait()
            partition = None
            if key is None:
                partition = sorted(partitions)[self._next % len(partitions)]
                self._next += 1
            sent = future_of(producer.send(topic, value, key, partition=partition))
        except PymicroError:
            raise
        except Exception as error:
            raise mapped(error, self._settings.address) from error
        self._bytes += size
        sent.add_done_callback(lambda sent: self._gone(sent, size))
        return sent

    def _gone(self, sent: asyncio.Future[Any], size: int) -> None:
        sent.exception()  # its publisher may have given up, and then nobody else asks
        self._bytes -= size
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
