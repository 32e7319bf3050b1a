"""The service: all components of one program in one object, and its life."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pymicro._composition import Composition
from pymicro._internal.complaint import complain, install
from pymicro._internal.logs import log, set_up_logging
from pymicro._internal.running import run_until_signalled, runner
from pymicro.broker import RetryPolicy, Subscription
from pymicro.client import Client, Publisher, Publishing
from pymicro.client import Parts as ClientParts
from pymicro.clock import Clock, SystemClock
from pymicro.codec import EnvelopeCodec
from pymicro.errors import ConfigurationError, PymicroError, UsageError
from pymicro.plugins import Identity
from pymicro.plugins._host import HOST
from pymicro.record import Node
from pymicro.rpc import Middleware, names
from pymicro.server import Health, Server, subscriber
from pymicro.server import Parts as ServerParts
from pymicro.settings import HelpRequested, Settings
from pymicro.workers import Handover, handed_over

if TYPE_CHECKING:
    from pymicro.workers._link import Link

T = TypeVar("T")


class Service:
    """One service: what it serves, what it calls, and the components that it does so with.

    A service is a description until it is entered: `async with service`, `await service.start()` or `service.run()`.
    It listens and registers only if something was handled or subscribed. After it stopped it can start again, in
    another event loop too.

    Args:
        name: the name it is registered and called under.
        flags: a `msgspec.Struct` type of the program's own flags; their values are `service.flags`.
        environ: the environment to read; None for the process's.
        clock: the time for TTLs, deadlines and back-off; None for the machine's.
        **keywords: any flag by its name, such as `version="1.2.3"`, `server_address=":8080"`, `registry="etcd"`. A
            kind also takes a component, or a function that makes one from a `Build`; `brokers={"alerts": "nats"}`
            names further instances. Flags and environment override them.

    Raises:
        InvalidOption: a keyword is unknown, when the service is resolved.
    """

    def __init__(
        self,
        name: str,
        *,
        flags: type[Any] | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        **keywords: Any,
    ) -> None:
        install()
        self.name = name
        self.client = Client(name)
        self.server = Server(name)
        self._flags = flags
        self._environ = environ
        self._clock: Clock = clock or SystemClock()
        self._keywords = {"name": name, **keywords}
        self._settings: Settings | None = None
        self._stack: AsyncExitStack | None = None
        self._turn: asyncio.Future[None] | None = None  # set while a start or a stop is under way
        self._composition: Composition | None = None
        self._publishing: Publishing | None = None
        self._event_middleware: list[Middleware] = []
        self._configured = False
        self._announced = False
        self._stop_requested: asyncio.Event | None = None
        self._link: Link | None = None
        self._line: tuple[Sequence[str] | None, Mapping[str, Any]] = (None, {})
        self.client.opener = lambda: self

    # what it serves

    def handle(self, handler: object, *, interface: type[Any] | None = None, name: str | None = None) -> None:
        """Serve the public methods of `handler` as endpoints; see `Server.handle`."""
        self.server.handle(handler, interface=interface, name=name)

    def subscribe(
        self,
        topic: str,
        function: Callable[[Any], Any],
        *,
        queue: str = "",
        broker: str = "",
        retry: RetryPolicy | None = None,
        native: Any = None,
        concurrency: int | None = None,
        prefetch: int | None = None,
    ) -> None:
        """Run `function` for each event of a topic.

        Args:
            topic: the topic's name.
            function: takes one annotated parameter: the event; `Delivery[T]` to settle by hand; or
                `Sequence[Delivery[T]]` for batches. An exception is a retry, `BadRequest` a dead letter.
            queue: subscribers of one queue, in all processes, share the events; empty: each gets all.
            broker: the instance's name; empty for the default one.
            retry: how often and when an event comes again; None for `RetryPolicy()`.
            native: the broker plugin's own subscription options; None for none.
            concurrency: events at work at a time; None for `--server_subscriber_concurrency`.
            prefetch: events taken ahead; None for a number that fits the concurrency.

        Raises:
            InvalidHandler: the function's signature does not say what it takes.
            UsageError: the service runs.
        """
        self._require_stopped("subscribe()")
        self.server.events.add(
            subscriber(
                topic,
                function,
                queue=queue,
                broker=broker,
                retry=retry,
                native=native,
                concurrency=concurrency,
                prefetch=prefetch,
            )
        )

    def use(
        self, *, calls: Sequence[Middleware] = (), streams: Sequence[Middleware] = (), events: Sequence[Middleware] = ()
    ) -> None:
        """Append middleware around handlers: of calls, of streams, of events. The client has its own `use`."""
        self.server.use(calls=calls, streams=streams, events=events)

    def check(self, name: str, probe: Callable[[], Awaitable[object]]) -> None:
        """Add a health check: while `probe` raises, the service is not registered."""
        self.server.check(name, probe)

    # events

    async def publish(
        self,
        topic: str,
        event: Any,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        timeout: float | None = None,
        broker: str = "",
    ) -> None:
        """Publish one event; returns when the broker has it.

        Args:
            topic, event: where, and what; anything that the codec can write. `bytes` are the body as it is.
            key: events of one key keep their order where the broker declares it; None for no order.
            metadata: headers to send.
            content_type: of the body; None for the client's own.
            timeout: seconds; None for the broker's operation time-out.
            broker: the instance's name; empty for the default one.

        Raises:
            BackendUnavailable: not known to have arrived.
            BackendRefused, TooLarge: the broker does not take it.
        """
        if self._publishing is None:
            raise UsageError("the service is not running: publish inside 'async with service', or in service.run(main)")
        await self._publishing.publish(
            topic, event, key=key, metadata=metadata, content_type=content_type, timeout=timeout, broker=broker
        )

    def publisher(self, topic: str, type: type[T] | None = None) -> Publisher[T]:
        """Publishes events of one type to one topic."""
        return Publisher(self.publish, topic, type)

    @asynccontextmanager
    async def subscription(
        self,
        topic: str,
        type: type[T],
        *,
        queue: str = "",
        broker: str = "",
        retry: RetryPolicy | None = None,
        native: Any = None,
        manual: bool = False,
    ) -> AsyncIterator[Subscription[T]]:
        """Pull the events of a topic: `async for delivery in subscription`, with the promises of `subscribe`.

        Args:
            topic, queue, broker, retry, native: as in `subscribe`.
            type: of one event; `delivery.value` has it.
            manual: whether the loop settles each delivery itself.
        """
        if self._composition is None:
            raise UsageError("the service is not running: subscribe inside 'async with service'")
        source = await self._composition.broker(broker)
        codecs = self._composition.codecs

        def decode(delivery: Any) -> T:
            content_type = delivery.message.headers.get(names.CONTENT_TYPE, names.DEFAULT_CONTENT_TYPE)
            codec = codecs.get(content_type)
            inner = codec.inner if isinstance(codec, EnvelopeCodec) else codec
            value: T = inner.decoder(type)(delivery.message.body)
            return value

        async with Subscription(
            source,
            topic,
            decode=decode,
            queue=queue,
            retry=retry,
            native=native,
            manual=manual,
            clock=self._clock,
            logger=logging.getLogger("pymicro.broker"),
        ) as subscription:
            yield subscription

    # settings

    def init(self, argv: Sequence[str] | None = None, **overrides: Any) -> None:
        """Read the command line, once, and override it. `run` calls it when nobody did.

        Args:
            argv: the arguments without the program's name; None for the process's own. Help and mistakes in those
                end the process, as command lines do.
            **overrides: flags by name, stronger than everything else.

        Raises:
            ConfigurationError: a flag, variable or keyword is wrong (with `argv` given).
        """
        self._require_stopped("init()")
        self._line = argv, overrides
        try:
            self._settings = self._resolve(sys.argv[1:] if argv is None else argv, overrides)
        except HelpRequested as request:
            sys.stdout.write(request.text)
            raise SystemExit(0) from None
        except ConfigurationError as error:
            if argv is not None:
                raise
            complain(error)
            raise SystemExit(2) from None

    def _resolve(self, argv: Sequence[str] | None, overrides: Mapping[str, Any]) -> Settings:
        return Settings.resolve(
            keywords=self._keywords,
            environ=os.environ if self._environ is None else self._environ,
            argv=argv,
            overrides=overrides,
            flags=self._flags,
        )

    @property
    def settings(self) -> Settings:
        """Every option's value and where it came from."""
        if self._settings is None:
            self._settings = self._resolve(None, {})
        return self._settings

    @property
    def flags(self) -> Any:
        """The values of the program's own flags; None when it has none."""
        return self.settings.flags

    # life

    def run(self, main: Callable[[], Awaitable[Any]] | None = None, *, workers: int | None = None) -> None:
        """Run the service in an event loop of its own, until SIGINT, SIGTERM or the end of `main`.

        Parses the command line, uses uvloop when it is installed, and drains when it is told to stop; a second signal
        ends at once. An error of pymicro's that leaves `main` or the start is one message, no traceback (that is
        logged at level debug): exit status 2 for a mistake in the configuration, 1 for others, and for a service that
        was cut off by a second signal.

        Args:
            main: what to do; the service stops when it returns. None: serve until a signal.
            workers: processes that serve, each of which runs this program from its beginning; SIGHUP replaces them one
                by one. Flag and environment override it; None for `--server_workers`.
        """
        if workers is not None:
            self._keywords["server_workers"] = workers
            self._settings = None
        if self._settings is None:
            argv, overrides = self._line
            self.init(argv, **overrides)
        set_up_logging(self.settings.log_level)
        try:
            with runner() as loop:
                status = loop.run(self._run(main))
        except PymicroError as error:
            logging.getLogger("pymicro.service").debug("the program failed", exc_info=error)
            complain(error, self.settings.advice(error))
            raise SystemExit(2 if isinstance(error, ConfigurationError) else 1) from None
        if status:
            raise SystemExit(status)

    async def _run(self, main: Callable[[], Awaitable[Any]] | None) -> int:
        """The exit status."""
        self._stop_requested = asyncio.Event()
        handover = handed_over() if main is None else None
        if handover is not None:
            return await self._work(handover, self._stop_requested)
        if self.settings.server.workers > 1:
            return await self._supervise(main, self._stop_requested)
        return 0 if await run_until_signalled(self, main, self._stop_requested) else 1

    async def _work(self, handover: Handover, stop: asyncio.Event) -> int:
        from pymicro.workers._link import Link

        async with Link(handover, self.server, stop) as link:
            self._link = link
            try:
                return 0 if await run_until_signalled(self, link.serve, stop, link.signals) else 1
            finally:
                self._link = None

    async def _supervise(self, main: Callable[[], Awaitable[Any]] | None, stop: asyncio.Event) -> int:
        from pymicro.workers._supervisor import StartFailed

        self._configure()
        if main is not None or not self.server.serves:
            what = "runs a main()" if main is not None else "serves nothing"
            raise ConfigurationError(f"{self.name} {what}: only servers have worker processes (--server_workers)")
        self.name = self.settings.server.name
        supervisor = Composition(self.settings, self._identity(), self._clock).supervisor(stop)

        async def serve() -> None:
            self._announce(supervisor.node, workers=self.settings.server.workers)
            await stop.wait()

        try:
            ended = await run_until_signalled(supervisor, serve, stop, supervisor.signals)
        except StartFailed as error:
            return error.status
        log(logging.getLogger("pymicro.service"), logging.INFO, "service stopped", service=self.name)
        return 0 if ended and not supervisor.cut_off else 1

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the components, then listen and register if there is anything to serve.

        Raises:
            ConfigurationError: an option, a plugin or an address is wrong.
            ConnectionFailed: a backend refused.
        """
        self._require_stopped("start()")
        self._configure()
        async with self._take_turn():
            self._stack = stack = AsyncExitStack()
            try:
                await self._open(stack)
            except BaseException:
                await self._close()
                raise
        if self._link is None:  # else the supervisor speaks for all
            self._announced = True
            self._announce(self.server.node)

    def _configure(self) -> None:
        if not self._configured:
            self._configured = True
            HOST.configure(
                self, [choice.plugin for choice in self.settings.choices.values() if choice.plugin is not None]
            )

    @asynccontextmanager
    async def _take_turn(self) -> AsyncIterator[None]:
        self._turn = turn = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            self._turn = None
            turn.set_result(None)

    async def _open(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        self.name = self.client.name = settings.server.name  # a flag may have given another one
        self.server.rename(self.name)
        self._composition = composition = Composition(settings, self._identity(), self._clock)
        await stack.enter_async_context(composition)
        self.client.open(
            ClientParts(
                build=composition.build("client"),
                options=settings.client,
                transport=composition.get("transport"),
                selector=composition.get("selector"),
                codecs=composition.codecs,
            )
        )
        stack.push_async_callback(self.client.aclose)
        self._publishing = Publishing(
            self.name,
            composition.codecs,
            settings.client.content_type,
            composition.build("broker").timeout,
            composition.broker,
            self._event_middleware,
        )
        if self.server.serves:
            await self._serve(composition)

    def _identity(self) -> Identity:
        options = self.settings.server
        id = self._link.id if self._link is not None else options.id or str(uuid.uuid4())
        return Identity(name=options.name, version=options.version, id=id)

    async def _serve(self, composition: Composition) -> None:
        registry = composition.get("registry")
        brokers = {each.broker: await composition.broker(each.broker) for each in self.server.events.subscribers}
        await self.server.start(
            ServerParts(
                build=composition.build("server"),
                options=self.settings.server,
                transport=composition.get("transport"),
                registry=registry if self._link is None else self._link.registrar(registry.name),
                codecs=composition.codecs,
                brokers=brokers,
                address=self._link.address if self._link is not None else None,
            )
        )

    def _announce(self, node: Node | None, **more: Any) -> None:
        fields: dict[str, Any] = {"service": self.name, "version": self.settings.server.version, **more}
        if node is not None:
            fields |= {"node": node.id, "address": node.address}
        logger = logging.getLogger("pymicro.service")
        log(logger, logging.INFO, "service started", **fields, choices=", ".join(self.settings.provenance()))

    async def stop(self) -> None:
        """Deregister, drain, close. Idempotent; cancelled, it closes without draining.

        A start or another stop that is under way is waited for.
        """
        while self._turn is not None:
            await asyncio.wait([self._turn])
        if self._stack is None:
            return
        async with self._take_turn():
            await self._close()
        if self._announced:
            self._announced = False
            log(logging.getLogger("pymicro.service"), logging.INFO, "service stopped", service=self.name)

    async def _close(self) -> None:
        try:
            await self.server.stop()
        finally:
            stack, self._stack = self._stack or AsyncExitStack(), None
            self._publishing, self._composition = None, None
            await stack.aclose()

    def request_stop(self) -> None:
        """Make `run` stop the service, as a signal does. Call it in the service's loop."""
        if self._link is not None:
            self._link.request_stop()
        elif self._stop_requested is not None:
            self._stop_requested.set()

    async def health(self) -> Health:
        """Whether the service is ready for calls, and if not, why."""
        if self._stack is not None and not self.server.serves:
            return Health(status="ok")
        return await self.server.health()

    def _require_stopped(self, what: str) -> None:
        if self._stack is not None or self._turn is not None:
            raise UsageError(f"{what} comes before the service starts")
