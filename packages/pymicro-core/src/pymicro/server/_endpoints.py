"""Handlers made ready to be called: an `Endpoint` per method, a `Binding` per content type it is called with."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from pymicro.codec import Codec, CodecTable, Decode, Encode, Envelope, EnvelopeCodec
from pymicro.errors import BadRequest, Error, InternalServerError, InvalidHandler
from pymicro.metadata import Headers
from pymicro.rpc import Call, EndpointSpec, Middleware, Request, Response, chain, endpoints_of, names
from pymicro.server._threads import Threads

_MAX_BINDINGS: Final = 32


class Binding:
    """One endpoint under one content type.

    Attributes:
        endpoint, content_type: what it binds.
        decode: reads one request.
        head: the constant headers of a response.
        envelope: the codec that writes ids and errors into the body; None for the others.
    """

    __slots__ = ("_encode", "content_type", "decode", "endpoint", "envelope", "head")

    def __init__(self, endpoint: Endpoint, codec: Codec | EnvelopeCodec, content_type: str) -> None:
        inner = codec.inner if isinstance(codec, EnvelopeCodec) else codec
        self.endpoint = endpoint
        self.content_type = content_type
        try:
            self.decode: Decode = inner.decoder(endpoint.spec.request)
            self._encode: Encode = inner.encoder(endpoint.spec.response)
        except InvalidHandler as error:
            raise BadRequest(f"{endpoint.spec.name} cannot be called as {content_type}: {error}") from error
        self.envelope = codec if isinstance(codec, EnvelopeCodec) else None
        self.head = Headers([(names.CONTENT_TYPE, content_type)])

    def read(self, body: bytes) -> Any:
        """Read one request of a stream, envelope and all.

        Raises:
            BadRequest: it does not fit the endpoint's type.
        """
        return self.decode(body if self.envelope is None else self.envelope.unwrap_request(body)[1])

    def write(self, value: Any, number: str) -> bytes:
        """Write one response of the stream with the id `number`, envelope and all.

        Raises:
            BadRequest: the envelope cannot hold the id.
            InternalServerError: as `encode`.
        """
        data = self.encode(value)
        return data if self.envelope is None else self.envelope.wrap_response(Envelope(id=number), data)

    def encode(self, value: Any) -> bytes:
        """Write one response.

        Raises:
            InternalServerError: the value is not of the type that the handler promises.
        """
        try:
            return self._encode(value)
        except BadRequest as error:
            raise InternalServerError(f"{self.endpoint.spec.name}: {error.detail}") from error


class Endpoint:
    """One method of one handler.

    Attributes:
        spec, name, stream: its shape and types, and two of its facts that each call needs.
        internal: whether it is left out of the registry.
        call: middleware and handler.
    """

    def __init__(self, spec: EndpointSpec, method: Callable[..., Any], *, internal: bool = False) -> None:
        self.spec = spec
        self.internal = internal
        self.name = spec.name
        self.stream = spec.stream
        self._method = method
        self._bindings: dict[str, Binding] = {}
        self.call: Call = _unbound

    def prepare(
        self, calls: Sequence[Middleware], streams: Sequence[Middleware], threads: Callable[[], Threads]
    ) -> None:
        """Wrap the method in middleware; `threads` runs plain `def` methods. Done at each start of the server."""
        self._bindings.clear()
        invoke = _invoker(self.spec, self._method, threads)
        self.call = chain(() if self.internal else streams if self.stream else calls, invoke)

    def binding(self, content_type: str, codecs: CodecTable) -> Binding:
        """The endpoint under a content type, made at the first use.

        Raises:
            BadRequest: the content type is not known, or cannot carry the endpoint's types.
        """
        found = self._bindings.get(content_type)
        if found is None:
            found = Binding(self, codecs.get(content_type), content_type)
            if len(self._bindings) < _MAX_BINDINGS:  # callers may add any parameter to a content type
                self._bindings[content_type] = found
        return found


async def _unbound(request: Request) -> Response:
    raise InvalidHandler(f"{request.endpoint} was not prepared")


def _invoker(spec: EndpointSpec, method: Callable[..., Any], threads: Callable[[], Threads]) -> Call:
    if spec.server_stream:
        return _streaming(spec, method, threads)
    if not spec.asynchronous:
        return _threaded(spec, method, threads)
    if not spec.takes:

        async def without_request(request: Request) -> Response:
            try:
                return Response(await method())
            except Error as error:
                _ran(error)
                raise

        return without_request

    async def unary(request: Request) -> Response:
        try:
            return Response(await method(request.body))
        except Error as error:
            _ran(error)
            raise

    return unary


def _ran(error: Error) -> None:
    """An error that came out of a handler, which therefore ran: its own failed calls may say otherwise of theirs."""
    error.executed = "maybe"


def _streaming(spec: EndpointSpec, method: Callable[..., Any], threads: Callable[[], Threads]) -> Call:
    async def stream(request: Request) -> Response:
        arguments = (request.body,) if spec.takes else ()
        if not spec.asynchronous:
            items: Iterator[Any] = await threads().run(method, *arguments)
            return Response(_stepped(items, threads()))
        produced = method(*arguments)
        # `async def` without a yield hands back its iterator when awaited; an async generator is one already
        return Response(await produced if inspect.isawaitable(produced) else produced)

    return stream


def _threaded(spec: EndpointSpec, method: Callable[..., Any], threads: Callable[[], Threads]) -> Call:
    async def call(request: Request) -> Response:
        try:
            return Response(await threads().run(method, *((request.body,) if spec.takes else ())))
        except Error as error:
            _ran(error)
            raise

    return call


_END = object()


async def _stepped(items: Iterator[Any], threads: Threads) -> AsyncIterator[Any]:
    """A plain generator, stepped in a thread; closed between items when the stream ends early."""
    step: asyncio.Task[Any] | None = None
    try:
        while True:
            step = asyncio.create_task(threads.run(next, items, _END))
            item = await asyncio.shield(step)
            if item is _END:
                return
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None and step is not None:
            closing = threads.after(step, close)  # a generator that runs cannot be closed
            if step.done():
                await closing


def bind(handler: object, interface: type[Any] | None, name: str | None, *, internal: bool = False) -> list[Endpoint]:
    """The endpoints of a handler.

    Args:
        handler: the object whose methods serve.
        interface: the class that names the endpoints; None for the object's own.
        name: replaces the class's name in the endpoints' names; None keeps it.
        internal: leave them out of the registry.

    Raises:
        InvalidHandler: a signature cannot be served, or the object does not fit the interface.
    """
    if isinstance(handler, type):
        raise InvalidHandler(f"handle() takes an object: write handle({handler.__name__}(...))")
    own = type(handler)
    specs = endpoints_of(interface or own, name)
    if interface is not None:
        _require_fit(own, interface, specs)
        specs = {method: _as_written(spec, inspect.getattr_static(own, method)) for method, spec in specs.items()}
    return [Endpoint(spec, getattr(handler, method), internal=internal) for method, spec in specs.items()]


def _as_written(spec: EndpointSpec, function: Any) -> EndpointSpec:
    """The interface's endpoint, run the way the object's own method is written: in the loop or in a thread."""
    if spec.server_stream:
        asynchronous = not inspect.isgeneratorfunction(function)
    else:
        asynchronous = inspect.iscoroutinefunction(function)
    return msgspec.structs.replace(spec, asynchronous=asynchronous)


def _require_fit(own: type[Any], interface: type[Any], wanted: dict[str, EndpointSpec]) -> None:
    for method, spec in wanted.items():
        function = inspect.getattr_static(own, method, None)
        if not callable(function):
            raise InvalidHandler(f"{own.__qualname__} does not fit {interface.__qualname__}: it has no method {method}")
        generator = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
        if generator and not spec.server_stream:
            raise InvalidHandler(
                f"{own.__qualname__}.{method} yields, but {interface.__qualname__}.{method} returns one response"
            )
        takes = len(inspect.signature(function).parameters) > 1
        if takes != spec.takes:
            raise InvalidHandler(
                f"{own.__qualname__}.{method} and {interface.__qualname__}.{method} differ in their parameters"
            )
