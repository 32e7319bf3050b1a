"""JetStream's interface, as far as the broker needs it: streams, consumers, publishing with an acknowledgement.

A topic has a stream of its own, unless the server has one already that takes its subject. The stream keeps a message
until each of its consumers has acknowledged it; a consumer is a queue, or a subscription without one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from pymicro.clock import Clock
from pymicro.errors import BackendRefused, BackendUnavailable, PymicroError
from pymicro.plugins.toolkit import backoff
from pymicro_broker_nats import _wire
from pymicro_broker_nats._options import NatsBrokerOptions, NatsSubscription
from pymicro_nats.connection import Link, Session, Within, unanswered

_NANO: Final = 1_000_000_000

#: Seconds for which the server remembers the ids of messages, to take each once.
_DUPLICATES: Final = 120.0

#: Consumers of one queue that may wait at a time.
_MAX_WAITING: Final = 4096

#: Begins the name of the consumer that keeps a topic; as a queue it could not be, because of the space behind it.
_KEEPER: Final = "pymicro-keeps"

#: Topics whose streams are remembered.
_REMEMBERED: Final = 10_000

#: Seconds between two attempts at what may pass, at first and at most.
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    error: _Error | None = None


T = TypeVar("T", bound=_Answer)


class _Names(_Answer):
    streams: list[str] | None = None


class _StreamConfig(msgspec.Struct, frozen=True):
    retention: str = ""


class _StreamInfo(_Answer):
    config: _StreamConfig = _StreamConfig()


class _PubAck(_Answer):
    stream: str = ""


class ConsumerConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How the server knows a consumer; times are nanoseconds. Go's client has the same names."""

    name: str | None = None
    durable_name: str | None = None
    deliver_policy: str = "all"
    ack_policy: str = "none"
    ack_wait: int = 0
    max_deliver: int = 0
    filter_subject: str = ""
    max_waiting: int = 0
    max_ack_pending: int = 0
    inactive_threshold: int = 0


class _ConsumerInfo(_Answer):
    config: ConsumerConfig | None = None


class PullConsumerInfo(msgspec.Struct, frozen=True):
    """A consumer that exists.

    Attributes:
        stream, name: where it is.
        lease: seconds for which it lends a message.
        made: whether it did not exist before.
    """

    stream: str
    name: str
    lease: float
    made: bool


class JetStream:
    """The streams and consumers of one broker.

    Args:
        link: the connection.
        options: bounds of streams, times of consumers.
        clock: the time between two attempts.
    """

    def __init__(self, link: Link, options: NatsBrokerOptions, clock: Clock) -> None:
        self._link = link
        self._options = options
        self._clock = clock
        #: The streams that are known to exist, by topic, and topics that are kept. Another server may have others.
        self._streams: WeakKeyDictionary[Session, dict[str, str]] = WeakKeyDictionary()
        self._held: WeakKeyDictionary[Session, set[str]] = WeakKeyDictionary()

    # publishing

    async def publish(self, topic: str, payload: bytes, id: str, timeout: float, *, keep: bool = False) -> None:
        """Publish; returns when the stream has it. What is published again with the same id is there once.

        With `keep` it stays there though the topic has no consumers.

        Raises:
            BackendUnavailable: not known to be there, or no room in the stream; it was tried again until then.
            BackendRefused, TooLarge: not taken.
        """
        session = self._link.ready
        if session is None or keep or topic not in self._known(session):
            return await self._publish_patiently(topic, payload, id, timeout, keep)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        try:
            await self._put(session, topic, payload, id, (timeout, f"publishing to {topic!r}"))
        except BackendUnavailable as error:
            await self._publish_patiently(topic, payload, id, end - loop.time(), keep, error)

    async def _publish_patiently(
        self, topic: str, payload: bytes, id: str, timeout: float, keep: bool, last: PymicroError | None = None
    ) -> None:
        """Try for so long; `last` is why it was not possible until now."""
        failures = 0 if last is None else 1
        try:
            async with self._link.within(timeout, f"publishing to {topic!r}"):
                while True:
                    if failures:
                        await self._clock.sleep(backoff(failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT))
                    session = await self._link.session()
                    try:
                        return await self._publish_once(session, topic, payload, id, keep)
                    except BackendUnavailable as error:
                        last = error
                    failures += 1
        except BackendUnavailable as error:
            raise (last or error) from (error if last else error.__cause__)

    async def _publish_once(self, session: Session, topic: str, payload: bytes, id: str, keep: bool) -> None:
        stream = await self.stream(session, topic)
        if keep:
            await self._hold(session, stream, topic)
        await self._put(session, topic, payload, id, None)

    async def _put(self, session: Session, topic: str, payload: bytes, id: str, within: Within | None) -> None:
        answer = await session.request(topic, payload, {_wire.ID: id}, within)
        if unanswered(answer):
            self._known(session).pop(topic, None)
            self._held.pop(session, None)
            raise BackendUnavailable(f"no stream takes the subject {topic!r}", session.address)
        self._read(session, answer, _PubAck, f"publishing to {topic!r}")

    # streams

    async def stream(self, session: Session, topic: str) -> str:
        """The name of the topic's stream, which exists from now on.

        Raises:
            BackendUnavailable, BackendRefused: the server cannot be asked, or says no.
        """
        streams = self._known(session)
        name = streams.get(topic)
        if name is None:
            name = await self._find_stream(session, topic) or await self._make_stream(session, topic)
            if len(streams) >= _REMEMBERED:
                streams.clear()
            streams[topic] = name
        return name

    def _known(self, session: Session) -> dict[str, str]:
        return self._streams.setdefault(session, {})

    async def _hold(self, session: Session, stream: str, topic: str) -> None:
        """See to it that the stream keeps the topic's messages without consumers, until they are too old.

        A stream of interest keeps what somebody did not acknowledge; this is somebody who never does.
        """
        held = self._held.setdefault(session, set())
        if topic in held:
            return
        info = await self._ask(session, f"STREAM.INFO.{stream}", None, _StreamInfo)
        if info.config.retention == "interest":
            name = f"{_KEEPER} {topic}"
            config = ConsumerConfig(durable_name=_wire.name_of(name), ack_policy="explicit", filter_subject=topic)
            await self._create_consumer(session, stream, config)
        if len(held) >= _REMEMBERED:
            held.clear()
        held.add(topic)

    async def _find_stream(self, session: Session, topic: str) -> str | None:
        found = await self._ask(session, "STREAM.NAMES", {"subject": topic}, _Names)
        return found.streams[0] if found.streams else None

    async def _make_stream(self, session: Session, topic: str) -> str:
        name, options = _wire.name_of(topic), self._options
        config: dict[str, Any] = {
            "name": name,
            "subjects": [topic],
            "retention": "interest",
            "discard": "new",
            "storage": "file",
            "max_bytes": options.stream_bytes,
            "max_age": _nanoseconds(options.stream_age),
            "num_replicas": options.stream_replicas,
            "duplicate_window": _nanoseconds(min(_DUPLICATES, options.stream_age or _DUPLICATES)),
        }
        try:
            await self._ask(session, f"STREAM.CREATE.{name}", config, _Answer)
        except BackendRefused:
            # Somebody with other options may have made it meanwhile.
            found = await self._find_stream(session, topic)
            if found is None:
                raise
            return found
        return name

    # consumers

    async def consumer(
        self, session: Session, topic: str, queue: str, own_name: str, native: NatsSubscription
    ) -> PullConsumerInfo:
        """The consumer of a queue, or one of a subscription without a queue; it exists from now on.

        Raises:
            BackendUnavailable, BackendRefused: as for `stream`.
        """
        stream = await self.stream(session, topic)
        name = self._durable_name(stream, topic, queue) if queue else own_name
        try:
            found = await self._ask(session, f"CONSUMER.INFO.{stream}.{name}", None, _ConsumerInfo)
        except _NoSuchThing:
            found = await self._make_consumer(session, stream, name, topic, bool(queue), native)
            made = True
        else:
            made = False
        config = found.config or ConsumerConfig()
        if config.filter_subject not in ("", topic):
            raise BackendRefused(f"the consumer {name!r} of stream {stream!r} takes {config.filter_subject!r} only")
        return PullConsumerInfo(stream, name, config.ack_wait / _NANO, made)

    async def _make_consumer(
        self, session: Session, stream: str, name: str, topic: str, durable: bool, native: NatsSubscription
    ) -> _ConsumerInfo:
        config = ConsumerConfig(
            name=None if durable else name,
            durable_name=name if durable else None,
            deliver_policy=native.deliver,
            ack_policy="explicit",
            ack_wait=_nanoseconds(native.ack_wait or self._options.ack_wait),
            max_deliver=-1,
            filter_subject=topic,
            max_waiting=_MAX_WAITING,
            max_ack_pending=-1,
            inactive_threshold=0 if durable else _nanoseconds(self._options.inactive_threshold),
        )
        return await self._create_consumer(session, stream, config)

    async def _create_consumer(self, session: Session, stream: str, config: ConsumerConfig) -> _ConsumerInfo:
        subject = f"CONSUMER.CREATE.{stream}.{config.name}.{config.filter_subject}"
        if config.durable_name is not None:
            subject = f"CONSUMER.DURABLE.CREATE.{stream}.{config.durable_name}"
        return await self._ask(session, subject, {"stream_name": stream, "config": config}, _ConsumerInfo)

    @staticmethod
    def _durable_name(stream: str, topic: str, queue: str) -> str:
        # In a stream that others made, the queue of each topic is a consumer of its own.
        return _wire.name_of(queue if stream == _wire.name_of(topic) else f"{queue} {topic}")

    async def delete_consumer(self, session: Session, topic: str, name: str) -> None:
        """Delete a consumer of the topic's stream; that it does not exist is no error."""
        with suppress(_NoSuchThing):
            stream = await self.stream(session, topic)
            await self._ask(session, f"CONSUMER.DELETE.{stream}.{name}", None, _Answer)

    # asking

    async def _ask(self, session: Session, what: str, request: Any, answer: type[T]) -> T:
        payload = msgspec.json.encode(request) if request is not None else b""
        message = await session.request(f"$JS.API.{what}", payload)
        if unanswered(message):
            raise BackendRefused("JetStream is not enabled on the server, or not for this account", session.address)
        return self._read(session, message, answer, what)

    def _read(self, session: Session, message: Any, answer: type[T], what: str) -> T:
        try:
            found = msgspec.json.decode(message.data, type=answer)
        except (msgspec.DecodeError, UnicodeError) as error:
            text = f"{what}: {message.data[:100]!r} is no answer of JetStream"
            raise BackendRefused(text, session.address) from error
        problem = found.error
        if problem is None:
            return found
        text = f"{what}: {problem.description} ({problem.err_code})"
        if problem.code == 404:
            self._known(session).clear()
            self._held.pop(session, None)
            raise _NoSuchThing(text, session.address)
        if problem.code >= 500:  # no room, no leader: both may pass
            raise BackendUnavailable(text, session.address)
        raise BackendRefused(text, session.address)


class _NoSuchThing(BackendUnavailable):
    """There is no such stream or consumer; it can be made."""


def _nanoseconds(seconds: float) -> int:
    return int(seconds * _NANO)
