"""Typed stubs: objects with the methods of an interface that call a service."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from pymicro.client._method import Method, Target
from pymicro.errors import InternalServerError, InvalidHandler, UsageError
from pymicro.rpc import EndpointSpec, endpoints_of

if TYPE_CHECKING:
    from pymicro.client._client import Client

T = TypeVar("T")


def make_stub(client: Client, target: Target, interface: Callable[..., T], name: str | None) -> T:
    """See `Client.stub`."""
    specs = _specs(interface, name)
    plain = [spec.method for spec in specs.values() if not spec.asynchronous]
    if plain:
        raise InvalidHandler(
            f"{_name_of(interface)}.{plain[0]} is a plain def method, which a stub cannot await: write it as async "
            "def, or use client.blocking.stub"
        )
    stub: Any = Stub(f"{target.service} {_name_of(interface)}")
    for spec in specs.values():
        vars(stub)[spec.method] = _bound(client, target, spec)
    typed: T = stub
    return typed


class Stub:
    """Has a method for each endpoint."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return f"<stub of {self._text}>"


def _specs(interface: Callable[..., Any], name: str | None) -> dict[str, EndpointSpec]:
    if not isinstance(interface, type):
        raise InvalidHandler(f"stub() takes a class, got {interface!r}")
    return endpoints_of(interface, name)


def _name_of(interface: Callable[..., Any]) -> str:
    return getattr(interface, "__qualname__", repr(interface))


class _Prepared:
    """The method for the components that the client has now; made anew after the client was opened anew.

    Attributes:
        method: what `get` gave last.
        token: the client's when it did.
    """

    __slots__ = ("_client", "_spec", "_target", "method", "token")

    def __init__(self, client: Client, target: Target, spec: EndpointSpec) -> None:
        self._client = client
        self._target = target
        self._spec = spec
        self.method: Method | None = None
        self.token: object = None

    def get(self) -> Method:
        token = self._client.token
        if self.method is None or token is not self.token:
            self.method = self._client.method(self._target, self._spec)
            self.token = token
        return self.method


def _bound(client: Client, target: Target, spec: EndpointSpec) -> Callable[..., Any]:
    prepared = _Prepared(client, target, spec)
    if spec.server_stream:
        return _named(_server_stream(client, prepared, spec), spec)
    if spec.client_stream:
        return _named(_client_stream(client, prepared), spec)
    if not spec.takes:

        async def call_without() -> Any:
            return await client.invoke(prepared.get(), None)

        return _named(call_without, spec)

    async def call(request: Any) -> Any:
        method = prepared.method
        if method is None or client.token is not prepared.token:
            method = prepared.get()
        return await client.invoke(method, request)

    return _named(call, spec)


def _server_stream(client: Client, prepared: _Prepared, spec: EndpointSpec) -> Callable[..., Any]:
    if not spec.takes:

        def stream_without() -> AsyncIterator[Any]:
            return client.stream(prepared.get(), None)

        return stream_without

    def stream(request: Any) -> AsyncIterator[Any]:
        return client.stream(prepared.get(), request)

    return stream


def _client_stream(client: Client, prepared: _Prepared) -> Callable[..., Any]:
    async def upload(requests: Any) -> Any:
        responses = client.stream(prepared.get(), requests)
        try:
            async for response in responses:
                return response
        finally:
            await responses.aclose()
        raise InternalServerError(f"{prepared.get().spec.name} ended without a response", "pymicro.client")

    return upload


def _named(function: Callable[..., Any], spec: EndpointSpec) -> Callable[..., Any]:
    function.__name__ = spec.method
    function.__qualname__ = spec.name
    return function


# synchronous callers


class _Portal:
    """The event loop that serves this process's synchronous callers, in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._services: list[Any] = []
        self._opening = asyncio.Lock()
        self._unready: set[Client] = set()

    def run(self, client: Client, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work()` in the loop that the client is open in, opening its service here if it is in none."""
        _refuse_in_loop()
        loop = client.loop
        if loop is None or client in self._unready:
            loop = self._start()
            self._submit(loop, self._open(client))
        return self._submit(loop, _awaited(work))

    def _submit(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _open(self, client: Client) -> None:
        async with self._opening:  # threads that come meanwhile wait here
            if client.loop is None and client.opener is not None:
                service = client.opener()
                self._unready.add(client)
                try:
                    await service.__aenter__()
                finally:
                    self._unready.discard(client)
                self._services.append(service)

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._loop.run_forever, name="pymicro blocking", daemon=True)
                thread.start()
                atexit.register(self._stop, thread)
            return self._loop

    def _stop(self, thread: threading.Thread) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            self._submit(loop, self._close())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _close(self) -> None:
        async with AsyncExitStack() as stack:
            for service in self._services:
                stack.push_async_exit(service)


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _refuse_in_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError("a blocking call inside a running event loop would stop it: use client.stub and await")


_portal = _Portal()


class Blocking:
    """A client for synchronous code. It works in threads without a running event loop."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def stub(self, service: str, interface: type[Any], **how: Any) -> Any:
        """As `Client.stub`; the methods block, and streams are plain iterators.

        Raises:
            UsageError: at a call inside a running event loop, which it would block.
        """
        name = how.pop("name", None)
        target = Target(service=service, **how)
        stub = Stub(f"{service} {_name_of(interface)}, blocking")
        for spec in _specs(interface, name).values():
            vars(stub)[spec.method] = _refused(spec) if spec.client_stream else _blocking(self._client, target, spec)
        return stub


def _refused(spec: EndpointSpec) -> Callable[..., Any]:
    def refuse(*_: Any) -> None:
        raise UsageError(f"{spec.method}() takes a stream of requests: call it from asynchronous code")

    return refuse


def _blocking(client: Client, target: Target, spec: EndpointSpec) -> Callable[..., Any]:
    bound = _bound(client, target, spec)
    if not spec.server_stream:
        return _named(lambda *request: _portal.run(client, lambda: bound(*request)), spec)

    def stream(*request: Any) -> Iterator[Any]:
        async def begin() -> AsyncIterator[Any]:
            return bound(*request)  # type: ignore[no-any-return]  # a bound stream is an asynchronous iterator

        items: Any = _portal.run(client, begin)
        try:
            while True:
                try:
                    yield _portal.run(client, items.__anext__)
                except StopAsyncIteration:
                    return
        finally:
            _portal.run(client, items.aclose)

    return _named(stream, spec)
