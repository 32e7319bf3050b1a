"""What a handler may know of the call that it serves, without an argument for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import msgspec

from pymicro.errors import UsageError
from pymicro.metadata import Headers
from pymicro.rpc._names import is_reserved
from pymicro.rpc._request import Request, checked

#: Trace headers (W3C Trace Context and Baggage) pass from the call that is served to the calls made inside it.
TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The call being served.

    Attributes:
        service, endpoint: what was called; for an event, the topic is the endpoint.
        metadata: the caller's headers, without those that are the framework's business.
        deadline: when it ends, on the service's monotonic clock; None for no end.
        peer: the caller's address; empty for an event.
        account: who calls, as middleware found out; None when nobody authenticated.
        headers: every header, as it came.
        local: what middleware left for the handler.
    """

    service: str
    endpoint: str
    deadline: float | None
    peer: str
    account: Any
    headers: Headers
    local: dict[str, Any]

    @property
    def metadata(self) -> Mapping[str, str]:
        """See the class."""
        return Headers([pair for pair in self.headers.items() if not is_reserved(pair[0])])


#: The request that the running handler serves. `context()` is its public face.
current: ContextVar[Request | None] = ContextVar("pymicro_request", default=None)


def context() -> Context:
    """The call that the running handler serves.

    Raises:
        UsageError: no handler is running here.
    """
    request = current.get()
    if request is None:
        raise UsageError("pymicro.context() is for code that runs inside a handler or subscriber")
    return Context(
        service=request.service,
        endpoint=request.endpoint,
        deadline=request.deadline,
        peer=request.peer,
        account=request.account,
        headers=request.headers,
        local=request.local,
    )


def trace_of(headers: Headers) -> tuple[tuple[str, str], ...]:
    """The trace headers among `headers`."""
    lowered = headers.lowered
    return tuple((name, lowered[name]) for name in TRACE_HEADERS if name in lowered)


class CallOptions(msgspec.Struct, frozen=True):
    """What `call_options` set for the calls made inside it."""

    metadata: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None


options: ContextVar[CallOptions | None] = ContextVar("pymicro_call_options", default=None)


@contextmanager
def call_options(
    *, metadata: Mapping[str, str] | None = None, timeout: float | None = None, propagate: bool = False
) -> Iterator[None]:
    """Set options for the calls made inside the block.

    Args:
        metadata: headers to send; inner blocks add to outer ones, and win where a name is the same.
        timeout: seconds for each call; None keeps what an outer block or the client says. It never outlives the
            deadline of the call that is being served.
        propagate: whether the callee's own calls carry the metadata on, too (as W3C baggage does for values).

    Raises:
        ValueError: a metadata name is reserved, or the time-out is not above 0.
    """
    if timeout is not None and timeout <= 0:
        raise ValueError(f"timeout must be above 0 seconds, got {timeout}")
    outer = options.get() or CallOptions()
    pairs = checked(metadata or {})
    if propagate and pairs:
        pairs = (*pairs, (PROPAGATE, ",".join(name for name, _ in pairs)))
    token = options.set(CallOptions(merged(outer.metadata, pairs), outer.timeout if timeout is None else timeout))
    try:
        yield
    finally:
        options.reset(token)


#: Names the headers that each hop hands on to its own calls. An ordinary header, so Go peers just carry it.
PROPAGATE: Final = "Propagate"


def propagated_by(request: Request) -> tuple[tuple[str, str], ...]:
    """What calls made while serving `request` carry: the trace, and what the caller marked."""
    headers = request.headers
    pairs = trace_of(headers)
    names = headers.lowered.get("propagate")
    if not names:
        return pairs
    marked = {name.strip().lower(): name.strip() for name in names.split(",")}.values()  # each once
    kept = [(name, headers[name]) for name in marked if name in headers and _may_travel(name)]
    return (*pairs, *kept, (PROPAGATE, ",".join(name for name, _ in kept)))


def _may_travel(name: str) -> bool:
    return not is_reserved(name) and name.lower() not in ("authorization", "propagate", *TRACE_HEADERS)


def merged(*groups: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The pairs of all groups. Of one name the last counts, but what is marked in one group stays marked."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in itertools.chain(*groups):
        lower = name.lower()
        if lower == "propagate" and lower in found:
            value = f"{found[lower][1]},{value}"
        found[lower] = (name, value)
    return tuple(found.values())
