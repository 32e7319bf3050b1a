"""Subscribers: functions that handle the events of a topic."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from pymicro.broker import Broker, Delivery, Dispatcher, RetryPolicy
from pymicro.clock import Clock
from pymicro.codec import CodecTable, Decode, EnvelopeCodec
from pymicro.errors import BadRequest, ConfigurationError, Error, InvalidHandler
from pymicro.message import Message
from pymicro.record import Endpoint as EndpointRecord
from pymicro.rpc import Middleware, Request, Response, chain, current, from_exception, names
from pymicro.rpc import describe as describe_type
from pymicro.server._options import ServerOptions
from pymicro.server._threads import Threads

_MAX_DECODERS: Final = 32


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """One function and the topic that it handles.

    Attributes:
        topic, function: what and by whom.
        type: of one event.
        manual: whether the function takes `Delivery[T]` and settles itself.
        batch: whether it takes a sequence of deliveries.
        queue, broker, retry, native: as in `Service.subscribe`.
        concurrency, prefetch: events at work, events taken ahead; None for the server's options.
        batch_size, batch_wait: largest batch, and seconds to wait for it to fill.
    """

    topic: str
    function: Callable[..., Any]
    type: Any
    manual: bool
    batch: bool
    queue: str = ""
    broker: str = ""
    retry: RetryPolicy | None = None
    native: Any = None
    concurrency: int | None = None
    prefetch: int | None = None
    batch_size: int = 100
    batch_wait: float = 0.1


def subscriber(topic: str, function: Callable[..., Any], **options: Any) -> Subscriber:
    """Read a subscriber's signature.

    Raises:
        InvalidHandler: it does not take exactly one annotated event, or the annotation cannot be resolved.
    """
    where = getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise InvalidHandler(f"subscribe({topic!r}, ...) takes a function, got {function!r}")
    parameters = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(parameters) != 1:
        raise InvalidHandler(f"subscriber {where} takes one parameter, the event; it has {len(parameters)}")
    hint = _hint(where, function, parameters[0].name)
    batch = typing.get_origin(hint) in (Sequence, list)
    if batch:
        hint = typing.get_args(hint)[0]
    manual = hint is Delivery or typing.get_origin(hint) is Delivery
    if batch and not manual:
        raise InvalidHandler(f"subscriber {where}: a batch is Sequence[Delivery[T]], so that each can be settled")
    if manual:
        hint = (typing.get_args(hint) or (Any,))[0]
    return Subscriber(topic=topic, function=function, type=hint, manual=manual, batch=batch, **options)


def _hint(where: str, function: Callable[..., Any], name: str) -> Any:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        raise InvalidHandler(
            f"subscriber {where}: the annotation of {name!r} cannot be resolved: {error}. "
            "Define or import the type at the top of the module"
        ) from error
    if name not in hints:
        raise InvalidHandler(f"subscriber {where}: parameter {name!r} has no annotation; it says how events are read")
    return hints[name]


def _is_asynchronous(function: Callable[..., Any]) -> bool:
    plain = function.func if isinstance(function, functools.partial) else function
    return inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(type(plain).__call__)


class Subscriptions:
    """All subscribers of one server.

    Attributes:
        service: the name of the service.
        middleware: wraps each event, the first outermost.
        subscribers: all of them.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.middleware: list[Middleware] = []
        self.subscribers: list[Subscriber] = []
        self._running: list[_Running] = []

    def __bool__(self) -> bool:
        return bool(self.subscribers)

    def add(self, subscriber: Subscriber) -> None:
        """One more; it takes effect at the next start."""
        self.subscribers.append(subscriber)

    def records(self) -> list[EndpointRecord]:
        """The subscribers as registries show them: go-micro `server/subscriber.go`."""
        return [
            EndpointRecord(
                getattr(each.function, "__qualname__", "subscriber").rpartition("<locals>.")[2],
                describe_type(each.type),
                None,
                {"topic": each.topic, "subscriber": "true"},
            )
            for each in self.subscribers
        ]

    async def start(
        self,
        brokers: Mapping[str, Broker],
        codecs: CodecTable,
        clock: Clock,
        logger: logging.Logger,
        options: ServerOptions,
        threads: Threads,
    ) -> None:
        """Attach every subscriber to its broker.

        Raises:
            ConfigurationError: a subscriber names a broker that the service does not have.
            ConnectionFailed: the broker refused.
        """
        for each in self.subscribers:
            if each.broker not in brokers:
                raise ConfigurationError(f"topic {each.topic!r}: the service has no broker called {each.broker!r}")
            event = _Event(self.service, each, codecs, self.middleware, logger, threads)
            dispatcher = Dispatcher(
                brokers[each.broker],
                each.topic,
                event.handle_batch if each.batch else event.handle,
                queue=each.queue,
                concurrency=each.concurrency or options.subscriber_concurrency,
                prefetch=each.prefetch,
                retry=each.retry,
                batch=(each.batch_size, each.batch_wait) if each.batch else None,
                manual=each.manual,
                native=each.native,
                clock=clock,
                logger=logger,
            )
            self._running.append(_Running(each, event, dispatcher))
            await dispatcher.__aenter__()

    async def dispatch(self, topic: str, message: Message) -> Error | None:
        """Run the subscribers of `topic` for an event that came over the RPC socket; the error to answer with.

        There is no broker to bring it again, so a failure is told to the publisher. An unknown topic is no error.
        """
        for running in self._running:
            if running.subscriber.topic == topic and not running.subscriber.manual:
                try:
                    await running.event.handle(Delivery(topic=topic, message=message))
                except Exception as error:
                    return from_exception(error, self.service, topic, running.event.logger)
        return None

    def reasons(self) -> dict[str, str]:
        """The topics that are not attached to their broker."""
        return {
            f"topic {running.subscriber.topic}": "not attached to its broker"
            for running in self._running
            if not running.dispatcher.attached
        }

    async def drain(self, timeout: float) -> None:
        """Take no more events and let those at work finish, for at most `timeout` seconds."""
        if self._running:
            await asyncio.gather(*(running.dispatcher.drain(timeout) for running in self._running))

    async def aclose(self) -> None:
        """Close every subscription."""
        running, self._running = self._running, []
        for each in running:
            await each.dispatcher.aclose()


class _Running(msgspec.Struct, frozen=True):
    subscriber: Subscriber
    event: _Event
    dispatcher: Dispatcher


class _Event:
    """Turns deliveries into calls of one function."""

    def __init__(
        self,
        service: str,
        subscriber: Subscriber,
        codecs: CodecTable,
        middleware: Sequence[Middleware],
        logger: logging.Logger,
        threads: Threads,
    ) -> None:
        self._service = service
        self._subscriber = subscriber
        self._codecs = codecs
        self._threads = threads
        self._asynchronous = _is_asynchronous(subscriber.function)
        self._decoders: dict[str, Decode] = {}
        self._call = chain(middleware, self._invoke)
        self.logger = logger

    async def handle(self, delivery: Delivery[Any]) -> None:
        """One event."""
        value = delivery.value = self.decode(delivery)
        body = delivery if self._subscriber.manual else value
        request = Request(service=self._service, endpoint=delivery.topic, body=body, headers=delivery.message.headers)
        token = current.set(request)
        try:
            await self._call(request)
        finally:
            current.reset(token)

    async def handle_batch(self, deliveries: Sequence[Delivery[Any]]) -> None:
        """Several events at once; those that cannot be read go to the dead letters."""
        good = []
        for delivery in deliveries:
            try:
                delivery.value = self.decode(delivery)
            except BadRequest as error:
                await delivery.reject(error.detail)
            else:
                good.append(delivery)
        if not good:
            return
        request = Request(service=self._service, endpoint=self._subscriber.topic, body=good)
        token = current.set(request)
        try:
            await self._call(request)
        finally:
            current.reset(token)

    def decode(self, delivery: Delivery[Any]) -> Any:
        """The event's value. An envelope type carries the plain body, as go-micro `client/rpc_client.go` sends it.

        Raises:
            BadRequest: it does not fit the subscriber's type, or its content type is not known.
        """
        content_type = delivery.message.headers.lowered.get("content-type") or names.DEFAULT_CONTENT_TYPE
        decode = self._decoders.get(content_type)
        if decode is None:
            codec = self._codecs.get(content_type)
            inner = codec.inner if isinstance(codec, EnvelopeCodec) else codec
            decode = inner.decoder(self._subscriber.type)
            if len(self._decoders) < _MAX_DECODERS:  # publishers may add any parameter to a content type
                self._decoders[content_type] = decode
        return decode(delivery.message.body)

    async def _invoke(self, request: Request) -> Response:
        if self._asynchronous:
            await self._subscriber.function(request.body)
        else:
            await self._threads.run(self._subscriber.function, request.body)
        return Response()
