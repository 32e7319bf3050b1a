"""One accepted socket: reads requests, runs handlers, writes replies.

A connection is one task. It carries one call at a time, which runs inside that task in a context of its own
(`InContext`), so that a call costs no task. The task learns from `Socket.on_disconnect` that the caller went away
while a handler runs, and from a timer that the deadline passed; both cancel it through `Interrupt`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pymicro import errors
from pymicro._internal.logs import log
from pymicro.codec import Envelope, EnvelopeCodec
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.rpc import InContext, Interrupt, Request, Response, current, error_fields, from_exception, names
from pymicro.server._endpoints import Binding
from pymicro.server._inbound import CallerGone, Inbound
from pymicro.transport import Socket

if TYPE_CHECKING:
    from pymicro.server._server import Server

T = TypeVar("T")

_ENDED = Headers([(names.ERROR, names.END_OF_STREAM)])
_CLOSE = (names.CONNECTION, "close")

#: Seconds that a connection over the limit has for the message that is refused.
_REFUSAL: Final = 1.0


class Connection:
    """Serves one socket until either side is done with it."""

    def __init__(self, server: Server, socket: Socket) -> None:
        self._server = server
        self._socket = socket
        self._interrupt: Interrupt | None = None
        self._inbound: Inbound | None = None
        self._task: asyncio.Task[Any] | None = None
        self._served: Request | None = None
        self._last = False
        socket.on_disconnect = self._caller_gone

    async def serve(self) -> None:
        """Serve messages one after another; returns when the socket shall be closed."""
        self._task = asyncio.current_task()
        while True:
            try:
                message = await self._socket.recv()
            except errors.Error as error:  # over a limit: there is one answer left to give
                self._server.stats.errors += 1
                await self._reply(None, None, error, closing=True)
                return
            except (errors.ConnectionFailed, errors.Closed):
                return
            if not await self._serve_one(message):
                return

    def forget(self) -> None:
        """Let go of what would keep this alive in a circle, once it serves no more."""
        self._task = None

    async def refuse(self, error: errors.Error) -> None:
        """Answer the first message with `error`, whatever it is. A peer that sends none is not waited for long."""
        interrupt = Interrupt.of()
        self._server.deadlines.start(interrupt, _REFUSAL)
        try:
            with suppress(errors.ConnectionFailed, errors.Closed, errors.Error):
                message = await self._socket.recv()
                await self._reply(None, message, error, closing=True)
        except asyncio.CancelledError:
            if not interrupt.caught():
                raise
        finally:
            interrupt.stop()

    async def _serve_one(self, message: Message) -> bool:
        """Serve one request; whether the connection goes on."""
        lowered = message.headers.lowered
        if lowered.get("micro-error"):
            return False  # the end, or the cancellation, of a stream that is over
        server = self._server
        if server.in_flight - server.streams >= server.options.max_requests or server.draining:
            refusal = server.refusal(message)
            if refusal is not None:
                server.stats.errors += 1
                return await self._refuse_one(message, refusal)
        server.stats.requests += 1
        server.in_flight += 1
        if lowered.get("connection") == "close":
            self._last = True
        try:
            sent = await self._dispatch(message, lowered)
        finally:
            server.request_done()
        return sent and not server.draining and not self._last

    async def _refuse_one(self, message: Message, refusal: errors.Error) -> bool:
        """Answer one request with `refusal`; whether the connection goes on."""
        server = self._server
        if not server.draining:
            return await self._reply(None, message, refusal)
        server.in_flight += 1  # who stops waits until the caller knows: it took the request, so it must say
        try:
            await self._reply(None, message, refusal)
        finally:
            server.request_done()
        return False

    def _dispatch(self, message: Message, lowered: dict[str, str]) -> Coroutine[Any, Any, bool]:
        """What is to be done for the message; not a coroutine itself, which would cost each call another step."""
        topic = lowered.get("micro-topic")
        if topic:
            return self._serve_event(topic, message)
        try:
            binding, envelope, body = self._resolve(message, lowered)
        except errors.Error as error:
            self._server.stats.errors += 1
            error.id = error.id or self._server.name
            return self._reply(None, message, error)
        if binding.endpoint.stream:
            return self._serve_stream(binding, message)
        return self._serve_call(binding, message, envelope, body)

    def _resolve(self, message: Message, lowered: dict[str, str]) -> tuple[Binding, Envelope | None, bytes]:
        """Who serves the message, and its body without an envelope."""
        server = self._server
        route = lowered.get("micro-endpoint"), lowered.get("content-type")
        known = server.routes.get(route)
        if known is not None and "micro-target" not in lowered:
            return known, None, message.body
        name, content_type = _asked(lowered)
        if not name:
            codec = server.codecs.get(content_type)
            if isinstance(codec, EnvelopeCodec):  # go-micro's oldest peers name the endpoint in the body only
                name = codec.unwrap_request(message.body)[0].endpoint
        binding = server.endpoint(name).binding(content_type, server.codecs)
        if binding.envelope is None or binding.endpoint.stream:  # the handshake of a stream has no body to read
            if route[0] and "micro-target" not in lowered and ";" not in content_type:  # parameters have no end
                server.remember(route, binding)
            return binding, None, message.body
        envelope, body = binding.envelope.unwrap_request(message.body)
        return binding, envelope, body

    async def _serve_call(self, binding: Binding, message: Message, envelope: Envelope | None, body: bytes) -> bool:
        server = self._server
        try:
            response = await self._limited(self._call, message, binding, message, binding.decode(body))
            encoded = binding.encode(response.body)
            if binding.envelope is not None and envelope is not None:
                encoded = binding.envelope.wrap_response(Envelope(id=envelope.id), encoded)
            if len(encoded) > server.limits.message:
                raise errors.TooLarge(f"the reply of {len(encoded)} bytes is over the limit", executed="maybe")
        except CallerGone:
            return False
        except Exception as error:
            return await self._reply(binding, message, self._failure(binding, error), envelope)
        head = self._head(binding.head) if server.draining or self._last else binding.head
        try:
            await self._socket.send(Message(head, encoded))
        except errors.TooLarge as error:  # a transport may take less than the limit
            refusal = errors.TooLarge(error.detail, executed="maybe")
            return await self._reply(binding, message, self._failure(binding, refusal), envelope)
        except (errors.ConnectionFailed, errors.Closed) as error:
            return self._unsent(error)
        return True

    def _call(self, binding: Binding, message: Message, body: Any) -> Coroutine[Any, Any, Response]:
        work = binding.endpoint.call(self._request(binding, message, body))
        return work if type(work) is CoroutineType else _awaited(work)

    def _request(self, binding: Binding, message: Message, body: Any) -> Request:
        """The request as middleware and handler see it; `pymicro.context()` finds it from now on."""
        interrupt, endpoint = self._interrupt, binding.endpoint
        request = Request(
            service=self._server.name,
            endpoint=endpoint.name,
            body=body,
            headers=message.headers,
            content_type=binding.content_type,
            stream=endpoint.stream,
            deadline=interrupt.deadline if interrupt is not None else None,
            peer=self._socket.remote,
        )
        current.set(request)
        self._served = request
        return request

    async def _limited(self, start: Callable[..., Coroutine[Any, Any, T]], message: Message, *arguments: Any) -> T:
        """Run what `start(*arguments)` gives until it ends, its deadline passes or the caller goes away.

        All of it runs in a context of its own, so that nothing that it sets is seen by another call.
        """
        interrupt = self._interrupt = Interrupt.of(self._task)
        timeout = self._server.timeout_of(message.headers.lowered)
        if timeout is not None:
            self._server.deadlines.start(interrupt, timeout)
        try:
            if not self._socket.connected:
                if self._inbound is None:
                    raise CallerGone("the caller went away", self._socket.remote)
                self._caller_gone()
            run = copy_context().run
            work = run(start, *arguments)
            try:
                waiting_for = run(work.send, None)
            except StopIteration as ended:  # most handlers of one step need nothing more
                return cast("T", ended.value)
            return await InContext(work, run, waiting_for)
        except asyncio.CancelledError:
            if not interrupt.caught():
                if interrupt.cancelled_from_outside():
                    raise
                raise RuntimeError("the handler was cancelled from inside") from None
            if interrupt.reason == "deadline":
                raise errors.DeadlineExceeded(f"the deadline of {timeout:.3g} s passed", self._server.name) from None
            raise CallerGone("the caller went away", self._socket.remote) from None
        finally:
            interrupt.stop()
            self._interrupt = None
            if self._served is not None:
                self._served.deadline = None  # tasks that the handler left behind may call on for as long as they like
                self._served = None

    def _caller_gone(self) -> None:
        if self._interrupt is None:
            return
        if self._inbound is not None and not self._inbound.ended:
            self._inbound.caller_gone(self._interrupt)
        elif self._inbound is None or not self._inbound.let_go:
            self._interrupt.fire("disconnect")

    def _failure(self, binding: Binding, error: Exception) -> errors.Error:
        self._server.stats.errors += 1
        return from_exception(error, self._server.name, binding.endpoint.spec.name, self._server.logger)

    # streams: go-micro `server/rpc_stream.go`

    async def _serve_stream(self, binding: Binding, message: Message) -> bool:
        server = self._server
        if server.streams >= server.options.max_streams:
            server.stats.errors += 1
            error = errors.TooManyRequests(f"{server.streams} streams are open, the limit", server.name)
            return await self._reply(binding, message, error)
        server.streams += 1
        self._inbound = Inbound(self._socket, binding.read)
        try:
            await self._limited(self._stream, message, binding, message, self._inbound)
        except CallerGone:
            return False
        except Exception as error:
            failure = self._failure(binding, error)
            failure.executed = "maybe"
            await self._reply(binding, message, failure)
        else:
            await self._send(Message(self._head(_ENDED), b""))
        finally:
            server.streams -= 1
            await self._inbound.aclose()
            self._inbound = None
        return False  # a stream has its connection for itself

    async def _stream(self, binding: Binding, message: Message, inbound: Inbound) -> None:
        """The handshake's body is discarded; requests are the messages after it."""
        spec = binding.endpoint.spec
        body: Any = inbound if spec.client_stream else await inbound.first(takes=spec.takes)
        response = await binding.endpoint.call(self._request(binding, message, body))
        head, number = self._head(binding.head), message.headers.get(names.ID, "")
        if not spec.server_stream:
            await self._push(Message(head, binding.write(response.body, number)))
            return
        items: AsyncIterator[Any] = response.body
        try:
            sent = 0
            async for item in items:
                await self._push(Message(head, binding.write(item, number)))
                sent += 1
                if sent % names.TURN == 0:
                    await asyncio.sleep(0)
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    async def _push(self, message: Message) -> None:
        try:
            await self._socket.send(message)
        except (errors.ConnectionFailed, errors.Closed) as error:
            raise CallerGone("the caller went away", self._socket.remote) from error

    async def _serve_event(self, topic: str, message: Message) -> bool:
        """An event sent to the RPC port: go-micro `server/rpc_server.go` answers it with an empty body."""
        try:
            error = await self._limited(self._server.events.dispatch, message, topic, message)
        except CallerGone:
            return False
        except Exception as failed:  # the deadline passed, or a subscriber was cancelled from inside
            error = from_exception(failed, self._server.name, topic, self._server.logger)
        return await self._reply(None, None, error)

    # replies

    def _head(self, head: Headers) -> Headers:
        """The headers of a reply. A socket carries one call at a time, so nothing has to be matched by id."""
        return head.extend((_CLOSE,)) if self._server.draining or self._last else head

    async def _reply(
        self,
        binding: Binding | None,
        message: Message | None,
        error: errors.Error | None,
        envelope: Envelope | None = None,
        *,
        closing: bool = False,
    ) -> bool:
        """Answer with an error, or with an empty body; whether it could be sent. `closing`: the last on the socket.

        An error stands in the envelope too, if there is one: Go's clients look there before they look at the headers.
        """
        if error is not None:
            error = self._within_limits(error)
        fields = error_fields(error) if error is not None else ()
        if closing:
            self._last = True
        head, codec = (binding.head, binding.envelope) if binding else self._unbound(message)
        body = b""
        if codec is not None and error is not None:
            text = errors.to_wire(error)
            body = codec.wrap_response(Envelope(id=envelope.id if envelope else "", error=text), b"")
        return await self._send(Message(self._head(head.extend(fields)), body))

    def _unbound(self, message: Message | None) -> tuple[Headers, EnvelopeCodec | None]:
        """The constant headers, and the envelope, of the answer to a message that no endpoint serves."""
        if message is not None:
            content_type = _asked(message.headers.lowered)[1]
            with suppress(errors.BadRequest):  # no codec for it
                codec = self._server.codecs.get(content_type)
                if isinstance(codec, EnvelopeCodec):
                    return Headers([(names.CONTENT_TYPE, content_type)]), codec
        return Headers(), None

    def _within_limits(self, error: errors.Error) -> errors.Error:
        """The error itself, or where its headers would be refused one of the same class with less to say."""
        limit = self._server.limits.headers
        if sum(len(value.encode()) for _, value in error_fields(error)) <= limit // 2:
            return error
        return errors.from_code(error.code, error.detail[: limit // 16], error.id[:100], executed=error.executed)

    async def _send(self, message: Message) -> bool:
        try:
            await self._socket.send(message)
        except (errors.ConnectionFailed, errors.Closed, errors.TooLarge) as error:
            return self._unsent(error)
        return True

    def _unsent(self, error: errors.PymicroError) -> bool:
        if isinstance(error, errors.TooLarge):
            log(self._server.logger, logging.ERROR, "reply refused", remote=self._socket.remote, error=str(error))
        return False


async def _awaited(work: Awaitable[T]) -> T:
    """Middleware that is a plain function may return any awaitable."""
    return await work


def _asked(lowered: dict[str, str]) -> tuple[str, str]:
    """The endpoint that the headers name, empty for none, and the content type that they mean."""
    content_type = lowered.get("content-type") or names.DEFAULT_CONTENT_TYPE
    name = lowered.get("micro-endpoint") or names.lookup(lowered, "micro-endpoint")
    name = name or names.lookup(lowered, "micro-method")
    if not name or "micro-target" in lowered:
        content_type = _legacy(content_type, lowered)
    return name, content_type


def _legacy(content_type: str, lowered: dict[str, str]) -> str:
    """The envelope type that an old peer means; see go-micro `server/rpc_codec.go`."""
    if names.lookup(lowered, "micro-protocol"):
        return content_type
    if content_type == "application/json":
        return "application/json-rpc"
    if content_type in ("application/protobuf", "application/octet-stream"):
        return "application/proto-rpc"
    return content_type
