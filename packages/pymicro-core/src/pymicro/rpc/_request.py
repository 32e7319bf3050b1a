"""Requests and responses as middleware sees them, on both sides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from pymicro.metadata import EMPTY, Headers
from pymicro.record import Node
from pymicro.rpc._names import is_reserved


class Request(msgspec.Struct, kw_only=True):
    """One call or stream on its way to the handler.

    Attributes:
        service: the name of the service that is called.
        endpoint: `Handler.Method`.
        body: the value; for a stream of requests, an asynchronous iterator of values.
        headers: what travels with it. Middleware adds with `add_metadata`.
        content_type: selects the codec.
        stream: whether requests or responses are a stream.
        deadline: when the call ends, on the component's monotonic clock; None for no end, and on the server when the
            handler has ended.
        peer: address of the other side; empty on the client until a node is chosen.
        node: on the client, the node of this attempt; None before one is chosen, and on the server.
        attempt: on the client, 1 for the first attempt.
        account: who calls, as an authenticating middleware found out; None when nobody did.
        local: a place where middleware may leave things for later middleware and the handler.
    """

    service: str
    endpoint: str
    body: Any = None
    headers: Headers = EMPTY
    content_type: str = ""
    stream: bool = False
    deadline: float | None = None
    peer: str = ""
    node: Node | None = None
    attempt: int = 1
    account: Any = None
    local: dict[str, Any] = {}

    def add_metadata(self, metadata: Mapping[str, str]) -> None:
        """Let `metadata` travel with the request.

        Raises:
            ValueError: a name is reserved (`Micro-*`, `Content-Type`, `Connection`, ...).
        """
        if metadata:
            self.headers = self.headers.extend(checked(metadata))


def checked(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The pairs of `metadata`, all of which users may set.

    Raises:
        ValueError: naming the one that is reserved.
    """
    for name in metadata:
        if is_reserved(name):
            raise ValueError(f"metadata {name!r} is reserved for the framework")
    return tuple(metadata.items())


class Response(msgspec.Struct):
    """What came of a request.

    Attributes:
        body: the value; for a stream of responses, an asynchronous iterator of values.
        headers: what the handler's side sent with it.
    """

    body: Any = None
    headers: Headers = EMPTY


Call = Callable[[Request], Awaitable[Response]]
Middleware = Callable[[Request, Call], Awaitable[Response]]


def chain(middleware: Iterable[Middleware], final: Call) -> Call:
    """`final` wrapped so that the first of `middleware` is the outermost."""
    call = final
    for layer in reversed([*middleware]):
        call = _wrapped(layer, call)
    return call


def _wrapped(layer: Middleware, inner: Call) -> Call:
    def call(request: Request) -> Awaitable[Response]:
        return layer(request, inner)

    return call
