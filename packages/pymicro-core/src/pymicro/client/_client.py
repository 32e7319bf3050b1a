"""The client: calls and streams to services found by name.

A call goes through `call` middleware once, then through attempts: choose a node, `attempt` middleware, exchange. One
deadline covers all of it. `docs/explanation/the-walk-of-a-call.md` follows one call through this file.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from pymicro import errors
from pymicro.client._failures import ID, Failures, failed, late, outcome_of, relayed
from pymicro.client._method import Method, Target, untyped
from pymicro.client._options import ClientOptions
from pymicro.client._outgoing import Outgoing, numbered, outgoing
from pymicro.client._pool import Connection, Pool
from pymicro.client._retry import Budget, delay, may_repeat
from pymicro.client._stream import Outbound
from pymicro.client._stub import Blocking, make_stub
from pymicro.clock import Clock
from pymicro.codec import CodecTable
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build, Limits
from pymicro.rpc import (
    CallOptions,
    Deadlines,
    EndpointSpec,
    Interrupt,
    Middleware,
    Request,
    Response,
    chain,
    checked,
    current,
    error_of,
    merged,
    names,
    options,
    propagated_by,
)
from pymicro.selector import Filter, Outcome, Pick, Selector, Strategy
from pymicro.transport import Transport

T = TypeVar("T")

#: Seconds: what Go reads of the `Timeout` header is an int64 of nanoseconds.
_LONGEST: Final = 9e9


class Parts(msgspec.Struct, kw_only=True):
    """The open components that a client works with."""

    build: Build
    options: ClientOptions
    transport: Transport
    selector: Selector
    codecs: CodecTable


class Client:
    """Calls services. It belongs to a `Service`, which opens and closes it.

    Attributes:
        name: the calling service's name.
        token: another object each time the client is opened; None while it is closed.
        opener: makes what synchronous callers open when the client is in no loop yet; None for nothing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._parts: Parts | None = None
        self.token: object = None
        self._pool: Pool | None = None
        self._middleware: dict[str, list[Middleware]] = {"calls": [], "attempts": [], "streams": []}
        self._numbers = itertools.count()
        self._in_flight = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self.opener: Callable[[], Any] | None = None

    # life

    def open(self, parts: Parts) -> None:
        """Work with these components until `aclose`."""
        self._parts = self.token = parts
        self._options = parts.options
        self._clock: Clock = parts.build.clock
        self._monotonic = self._clock.monotonic
        self._limits: Limits = parts.build.limits
        self._selector = parts.selector
        self._deadlines = Deadlines(self._clock)
        self._budget = Budget(parts.options.retry_budget, self._clock)
        self._pool = Pool(
            parts.transport,
            self._clock,
            size=parts.options.pool_size,
            ttl=parts.options.pool_ttl,
            dial_timeout=parts.options.dial_timeout,
        )
        self._stop_listening = parts.selector.on_removed(self._pool.drop)
        self._call_chain = chain(self._middleware["calls"], self._attempts)
        self._attempt_chain = chain(self._middleware["attempts"], self._exchange)
        self._stream_chain = chain(self._middleware["streams"], self._open_stream)
        self._loop = asyncio.get_running_loop()

    async def aclose(self) -> None:
        """Close every connection. Calls in flight fail."""
        pool, self._pool, self._parts, self.token, self._loop = self._pool, None, None, None, None
        if pool is not None:
            self._stop_listening()
            self._deadlines.close()
            await pool.aclose()

    def use(
        self,
        *,
        calls: Sequence[Middleware] = (),
        attempts: Sequence[Middleware] = (),
        streams: Sequence[Middleware] = (),
    ) -> None:
        """Append middleware; the first in a list is the outermost. It takes effect when the service opens.

        Args:
            calls: once a call, before a node is chosen.
            attempts: once an attempt; `request.node` is the chosen node.
            streams: once a stream.
        """
        self._middleware["calls"] += calls
        self._middleware["attempts"] += attempts
        self._middleware["streams"] += streams

    # what users call

    def stub(
        self,
        service: str,
        interface: Callable[..., T],
        *,
        name: str | None = None,
        address: str | None = None,
        filters: Sequence[Filter] = (),
        strategy: str | Strategy | None = None,
        key: str | None = None,
        content_type: str | None = None,
    ) -> T:
        """An object with the methods of `interface`, each of which calls `service`.

        Args:
            service: the name it is registered under.
            interface: the handler's class, or a Protocol or ABC with the same methods.
            name: replaces the interface's name in the endpoints' names; None keeps it.
            address: go to this node without asking the registry; None to choose a node.
            filters, strategy, key: how a node is chosen; see `pymicro.selector`.
            content_type: of the bodies; None for the client's own.

        Raises:
            InvalidHandler: a method cannot be called from here, such as a plain `def` one.
        """
        target = Target(
            service=service, address=address, filters=filters, strategy=strategy, key=key, content_type=content_type
        )
        return make_stub(self, target, interface, name)

    async def call(
        self,
        service: str,
        endpoint: str,
        body: Any = None,
        *,
        response: Any = Any,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotent: bool = False,
        address: str | None = None,
        filters: Sequence[Filter] = (),
        content_type: str | None = None,
    ) -> Any:
        """Call an endpoint by its name.

        Args:
            service, endpoint: whom and what (`Handler.Method`).
            body: the request; anything that the codec can write.
            response: the type to read the response as.
            timeout: seconds for all of it; None for what `call_options` or the client says.
            metadata: headers to send.
            idempotent: whether the call may be repeated after it was sent.
            address, filters, content_type: as in `stub`.

        Raises:
            Error: what the handler raised, or why it could not be reached.
        """
        target = Target(service=service, address=address, filters=filters, content_type=content_type)
        request = bytes if isinstance(body, bytes) else Any  # bytes are sent as they are, like Go's Frame
        method = self.method(target, untyped(endpoint, response, request=request, idempotent=idempotent))
        return await self.invoke(method, body, timeout=timeout, metadata=metadata)

    @property
    def blocking(self) -> Blocking:
        """The same for synchronous code: scripts, notebooks, plain `def` handlers."""
        return Blocking(self)

    # the call path

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that the client is open in; None while it is closed."""
        return self._loop

    def method(self, target: Target, spec: EndpointSpec) -> Method:
        """The prepared form of an endpoint.

        Raises:
            Closed: the client is not open.
            BadRequest: the content type is not known.
        """
        if self._parts is None:
            raise errors.Closed("the client is not open: use it inside 'async with service', or in service.run(main)")
        content_type = target.content_type or self._options.content_type
        return Method(target, spec, self._parts.codecs, content_type)

    async def invoke(
        self, method: Method, body: Any, *, timeout: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> Any:
        """One call, from the value to the value."""
        if self._in_flight >= self._options.max_calls:
            raise errors.TooManyRequests(f"{self._in_flight} calls are in flight, the client's limit", ID)
        serving, chosen = current.get(), options.get()
        request = self._request(method, body)
        if serving is not None or chosen is not None or metadata:
            request.headers = _with_metadata(request.headers, metadata, serving, chosen)
        seconds = timeout or method.timeout or self._options.request_timeout
        if serving is not None or chosen is not None or timeout is not None:
            seconds = self._seconds(method, timeout, serving, chosen)
        interrupt = Interrupt.of()
        self._deadlines.start(interrupt, seconds)
        request.deadline = interrupt.deadline
        self._in_flight += 1
        try:
            return (await self._call_chain(request)).body
        except asyncio.CancelledError:
            if not interrupt.caught():
                raise
            raise relayed(late(request, seconds)) from None
        except errors.Error as error:
            relayed(error)
            raise
        finally:
            self._in_flight -= 1
            interrupt.stop()

    def _request(self, method: Method, body: Any) -> Outgoing:
        return Outgoing(
            service=method.service,
            endpoint=method.name,
            body=body,
            headers=method.head,
            content_type=method.content_type,
            stream=method.stream,
            method=method,
        )

    def _seconds(
        self, method: Method, timeout: float | None, serving: Request | None, chosen: CallOptions | None
    ) -> float:
        """The time-out that holds, never longer than what is left of the call that is being served."""
        seconds = timeout if timeout is not None or chosen is None else chosen.timeout
        if seconds is None:
            seconds = method.timeout or self._options.request_timeout
        if serving is not None and serving.deadline is not None:
            seconds = min(seconds, serving.deadline - self._monotonic())
        return seconds if seconds > 0 else 0.0

    async def _attempts(self, request: Request) -> Response:
        """Attempts at one node after another, until one answers or none may be made."""
        method = request.method if type(request) is Outgoing else outgoing(request).method
        failures: Failures = []
        self._budget.earn()
        while True:
            pick = await self._pick(request, method, failures)
            request.node, request.peer = pick.node, pick.node.address
            request.attempt = len(failures) + 1
            began = self._monotonic()
            try:
                response = await self._attempt_chain(request)
            except (errors.Error, errors.ConnectionFailed) as error:
                pick.done(outcome_of(error), self._monotonic() - began, error)
                failures.append((pick.node, error))
                if not self._again(method, error, len(failures)):
                    self._fail(request, failures)
                await self._clock.sleep(0 if isinstance(error, errors.DialFailed) else delay(len(failures)))
            except BaseException:
                pick.done(Outcome.UNKNOWN, self._monotonic() - began)
                raise
            else:
                pick.done(Outcome.OK, self._monotonic() - began)
                return response

    def _again(self, method: Method, error: errors.Error | errors.ConnectionFailed, attempts: int) -> bool:
        if attempts > self._options.retries:
            return False
        return may_repeat(error, idempotent=method.spec.options.idempotent) and self._budget.spend(error)

    def _pick(self, request: Request, method: Method, failures: Failures) -> Awaitable[Pick]:
        """A node. Not a coroutine itself, which would cost each call another step."""
        if failures or method.node is not None:
            return self._pick_again(request, method, failures)
        target = method.target
        return self._selector.pick(target.service, filters=target.filters, strategy=target.strategy, key=target.key)

    async def _pick_again(self, request: Request, method: Method, failures: Failures) -> Pick:
        """The node that the target names; or one that was not tried yet, and when all were, after a while any."""
        if method.node is not None:
            if failures:
                await self._clock.sleep(delay(len(failures)))
            return Pick(method.node)
        try:
            return await self._pick_other(method.target, failures)
        except errors.NoNode:
            self._fail(request, failures)  # the last node left, but what was tried counts

    async def _pick_other(self, target: Target, failures: Failures) -> Pick:
        tried = [node.id for node, _ in failures]
        try:
            return await self._selector.pick(
                target.service, filters=target.filters, strategy=target.strategy, exclude=tried, key=target.key
            )
        except errors.NoOtherNode:
            pass
        await self._clock.sleep(delay(len(failures)))
        return await self._selector.pick(
            target.service, filters=target.filters, strategy=target.strategy, key=target.key
        )

    def _fail(self, request: Request, failures: Failures) -> NoReturn:
        fixed = outgoing(request).method.node is not None
        raise failed(request.service, failures, None if fixed else self._selector.age(request.service))

    async def _exchange(self, request: Request) -> Response:
        """One attempt: a connection, the request, the response."""
        pool, node = self._pool, request.node
        if pool is None or node is None:
            raise errors.Closed("the client was closed")
        call = request if type(request) is Outgoing else outgoing(request)
        method = call.method
        if "protocol" not in node.metadata:
            method = method.legacy()
        number = str(next(self._numbers))
        body = method.encode(request.body, number)
        message = self._message(request, method, number, body)
        connection = pool.idle(node) or await pool.dial(node)
        if connection.echoes:
            message = numbered(message, number)
        try:
            call.sent = True
            await connection.socket.send(message)
            reply = await connection.socket.recv()
        except BaseException:
            pool.discard(connection)
            raise
        headers = reply.headers
        lowered = headers.lowered
        if lowered.get("connection") == "close":
            pool.discard(connection)
        else:
            pool.release(connection)
        if connection.echoes is None:
            connection.echoes = "micro-endpoint" in lowered
        if "micro-error" in lowered:
            error = error_of(headers)
            if error is not None:
                raise error
        return Response(method.decode(reply.body, headers), headers)

    def _message(self, request: Request, method: Method, number: str, body: bytes) -> Message:
        if len(body) > self._limits.message:
            raise errors.TooLarge(f"the request of {len(body)} bytes is over the limit of {self._limits.message}", ID)
        headers = request.headers
        if method.content_type != request.content_type:
            headers = headers.extend(((names.CONTENT_TYPE, method.content_type),))
        fields: tuple[tuple[str, str], ...] = ((names.ID, number),)
        if request.deadline is not None:
            nanoseconds = int(min(request.deadline - self._monotonic(), _LONGEST) * 1e9)
            fields = ((names.ID, number), (names.TIMEOUT, str(nanoseconds if nanoseconds > 0 else 1)))
        if request.stream:
            fields = (*fields, (names.STREAM, number))
        return Message(headers.add(fields), body)

    # streams

    async def stream(
        self, method: Method, body: Any, *, timeout: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Any, None]:
        """One stream; yields its responses. Closing the iterator cancels the handler.

        Args:
            method: what is called.
            body: the request, or an asynchronous iterator of requests.
            timeout: seconds for all of it; None for no limit but that of the call being served.
            metadata: headers to send.

        Raises:
            Error: what the handler raised, or why it could not be reached.
        """
        chosen, serving = options.get(), current.get()
        request = self._request(method, body)
        request.headers = _with_metadata(request.headers, metadata, serving, chosen)
        limited = timeout if timeout is not None else chosen.timeout if chosen is not None else None
        if limited is None:
            limited = method.spec.options.timeout
        if limited is not None or (serving is not None and serving.deadline is not None):
            seconds = self._seconds(method, float("inf") if limited is None else limited, serving, chosen)
            request.deadline = self._monotonic() + seconds
        try:
            response = await self._opened(request)
        except errors.Error as error:
            relayed(error)
            raise
        items: AsyncIterator[Any] = response.body
        try:
            async for item in items:
                yield item
        except errors.Error as error:
            relayed(error)
            raise
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    async def _opened(self, request: Outgoing) -> Response:
        """The stream, open before its deadline. What comes after is limited by `Outbound`."""
        if request.deadline is None:
            return await self._stream_chain(request)
        seconds = request.deadline - self._monotonic()
        interrupt = Interrupt.of()
        self._deadlines.start(interrupt, seconds)
        try:
            return await self._stream_chain(request)
        except asyncio.CancelledError:
            if not interrupt.caught():
                raise
            raise late(request, seconds) from None
        finally:
            interrupt.stop()

    async def _open_stream(self, request: Request) -> Response:
        """The handshake, at a node that accepts a connection. go-micro `client/rpc_client.go`, `rpc_stream.go`."""
        method = outgoing(request).method
        failures: Failures = []
        while True:
            pick = await self._pick(request, method, failures)
            request.node, request.peer = pick.node, pick.node.address
            try:
                outbound = await self._handshake(request, method, pick)
            except errors.ConnectionFailed as error:
                pick.done(outcome_of(error), 0.0, error)
                failures.append((pick.node, error))
                if not self._again(method, error, len(failures)):
                    self._fail(request, failures)
            except BaseException:
                pick.done(Outcome.UNKNOWN)
                raise
            else:
                return Response(outbound)

    async def _handshake(self, request: Request, method: Method, pick: Pick) -> Outbound:
        if self._pool is None:
            raise errors.Closed("the client was closed")
        if "protocol" not in pick.node.metadata:
            method = method.legacy()
        message = self._message(request, method, str(next(self._numbers)), b"")
        connection: Connection = await self._pool.dial(pick.node)
        outgoing(request).sent = True
        outbound = Outbound(
            connection.socket, method, message.headers, pick, self._clock, self._deadlines, request.deadline
        )
        await outbound.open(request.body)
        return outbound


def _with_metadata(
    head: Headers, metadata: Mapping[str, str] | None, serving: Request | None, chosen: CallOptions | None
) -> Headers:
    """`head` with what this call sends, what `call_options` chose and what the served call hands on."""
    pairs = merged(
        propagated_by(serving) if serving is not None else (),
        chosen.metadata if chosen is not None else (),
        checked(metadata) if metadata else (),
    )
    return head.extend(pairs) if pairs else head
