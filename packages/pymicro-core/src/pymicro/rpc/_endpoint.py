"""Endpoints of a class: what its methods take and give. Servers and typed stubs read classes by the same rules."""

from __future__ import annotations

import inspect
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any, Final, TypeVar, overload

import msgspec

from pymicro.errors import InvalidHandler
from pymicro.record import Endpoint as EndpointRecord
from pymicro.rpc._schema import describe

F = TypeVar("F", bound=Callable[..., Any])

_ASYNC_STREAMS: Final = (AsyncIterator, AsyncIterable, AsyncGenerator)
_SYNC_STREAMS: Final = (Iterator, Iterable, Generator)
_MARK: Final = "__pymicro_endpoint__"


class EndpointOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `@endpoint` says about a method.

    Attributes:
        name: the method's part of the endpoint's name; None: `say_hello` becomes `SayHello`.
        idempotent: whether running it twice does no harm, so that a call may be repeated after it was sent.
        timeout: seconds that a call may take when the caller says nothing; None for the client's default.
        metadata: put into the registry with the endpoint.
    """

    name: str | None = None
    idempotent: bool = False
    timeout: float | None = None
    metadata: dict[str, str] = {}


@overload
def endpoint(function: F, /) -> F: ...


@overload
def endpoint(
    *,
    name: str | None = None,
    idempotent: bool = False,
    timeout: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Callable[[F], F]: ...


def endpoint(function: Any = None, /, **options: Any) -> Any:
    """Say more about a method that is served. It is read through interfaces too, so the client knows it.

    Args:
        function: the method, when the decorator is used without arguments.
        **options: the fields of `EndpointOptions`.
    """
    options["metadata"] = dict(options.get("metadata") or {})

    def mark(method: Any) -> Any:
        setattr(method, _MARK, EndpointOptions(**options))
        return method

    return mark if function is None else mark(function)


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One method, as both sides know it.

    Attributes:
        name: `Handler.Method`.
        method: the Python method's name.
        request: type of the request, or of each request of a stream; None for an endpoint without a request.
        response: type of the response, or of each response of a stream; None for none.
        takes: whether the method has a parameter at all.
        client_stream, server_stream: whether requests, responses are a stream.
        asynchronous: whether the method runs in the event loop; plain `def` methods run in a thread.
        options: what `@endpoint` said.
    """

    name: str
    method: str
    request: Any
    response: Any
    takes: bool
    client_stream: bool
    server_stream: bool
    asynchronous: bool
    options: EndpointOptions = EndpointOptions()

    @property
    def stream(self) -> bool:
        """Whether either side is a stream."""
        return self.client_stream or self.server_stream

    def record(self) -> EndpointRecord:
        """The endpoint as registries show it."""
        metadata = {**self.options.metadata, **({"stream": "true"} if self.stream else {})}
        return EndpointRecord(self.name, describe(self.request), describe(self.response), metadata)


def endpoints_of(interface: type[Any], name: str | None = None) -> dict[str, EndpointSpec]:
    """The endpoints of a class, by Python method name.

    Every public method is one. `name` replaces the class's name.

    Raises:
        InvalidHandler: the class has none, a signature cannot be served, or two methods have one endpoint name.
    """
    if not isinstance(interface, type):
        raise InvalidHandler(f"a class is needed here, got {interface!r}")
    handler = name or interface.__name__
    specs = {method: _spec(handler, interface, method, function) for method, function in _methods(interface)}
    if not specs:
        raise InvalidHandler(f"{interface.__qualname__} has no public method: there is nothing to serve or to call")
    taken: dict[str, str] = {}
    for spec in specs.values():
        other = taken.setdefault(spec.name, spec.method)
        if other != spec.method:
            raise InvalidHandler(f"{interface.__qualname__}.{other} and .{spec.method} are both endpoint {spec.name}")
    return specs


def _methods(interface: type[Any]) -> list[tuple[str, Callable[..., Any]]]:
    found: list[tuple[str, Callable[..., Any]]] = []
    for name, function in inspect.getmembers(interface, inspect.isfunction):
        if not name.startswith("_") and not isinstance(inspect.getattr_static(interface, name), staticmethod):
            found.append((name, function))
    return found


def _spec(handler: str, interface: type[Any], method: str, function: Callable[..., Any]) -> EndpointSpec:
    where = f"{interface.__qualname__}.{method}"
    parameter = _parameter(where, function)
    hints = _hints(where, function)
    request, client_stream, _ = _streamed(_hint(where, hints, parameter) if parameter else None)
    response, server_stream, sync_stream = _streamed(_hint(where, hints, "return"))
    options: EndpointOptions = getattr(function, _MARK, None) or _inherited(interface, method)
    coroutine = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    asynchronous = coroutine or (server_stream and not sync_stream)
    if client_stream and not asynchronous:
        raise InvalidHandler(f"{where}: a plain def method cannot take a stream of requests; write it as async def")
    return EndpointSpec(
        name=f"{handler}.{options.name or camel(method)}",
        method=method,
        request=request,
        response=response,
        takes=parameter is not None,
        client_stream=client_stream,
        server_stream=server_stream,
        asynchronous=asynchronous,
        options=options,
    )


def _inherited(interface: type[Any], method: str) -> EndpointOptions:
    """What a base class or Protocol said of the method, when the class itself says nothing."""
    for base in interface.__mro__[1:]:
        options: EndpointOptions | None = getattr(vars(base).get(method), _MARK, None)
        if options is not None:
            return options
    return EndpointOptions()


def _parameter(where: str, function: Callable[..., Any]) -> str | None:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    wrong = [p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.KEYWORD_ONLY)]
    if wrong or len(parameters) > 1:
        raise InvalidHandler(
            f"{where}: an endpoint takes self and at most one parameter, the request; it has "
            f"{', '.join(p.name for p in parameters)}. Start its name with an underscore if it is no endpoint"
        )
    return parameters[0].name if parameters else None


def _hints(where: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        names = [name for name, text in function.__annotations__.items() if error.name and error.name in str(text)]
        raise InvalidHandler(
            f"{where}: the annotation of {' and '.join(names) or 'a parameter'} cannot be resolved: {error}. "
            "Define or import the type at the top of the module"
        ) from error
    except (TypeError, AttributeError, SyntaxError) as error:
        raise InvalidHandler(f"{where}: an annotation cannot be read: {error}") from error


def _hint(where: str, hints: Mapping[str, Any], name: str) -> Any:
    if name not in hints:
        what = "the return type" if name == "return" else f"parameter {name!r}"
        raise InvalidHandler(f"{where}: {what} has no annotation; it says how bodies are read and written")
    return None if hints[name] is type(None) else hints[name]


def _streamed(hint: Any) -> tuple[Any, bool, bool]:
    """The type of one value; whether the hint is a stream of them; whether that stream is synchronous."""
    origin = typing.get_origin(hint)
    if origin in _ASYNC_STREAMS or origin in _SYNC_STREAMS:
        return typing.get_args(hint)[0], True, origin in _SYNC_STREAMS
    return hint, False, False


def camel(name: str) -> str:
    """`say_hello` as `SayHello`, as Go names its methods."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
