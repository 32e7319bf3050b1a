"""Stand-ins for services that a test does not run."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from inspect import Parameter
from typing import Any, NamedTuple

from pymicro.errors import Unimplemented, UsageError
from pymicro.rpc import EndpointSpec, endpoints_of


class Call(NamedTuple):
    """One call that a fake got.

    Attributes:
        method: the Python method's name.
        request: what it was called with; for a stream of requests, the list of those it took; None for none.
    """

    method: str
    request: Any


def fake(interface: type[Any], **answers: Any) -> Any:
    """An object with the methods of `interface` that answers what it was told.

    It can be served (`Mesh.fake`), or given to a handler instead of a stub. Its attribute `calls` is the list of the
    `Call`s that it got.

    Args:
        interface: a class, Protocol or ABC, as for `Service.handle`.
        **answers: by method. A function is called with the request; it may be `async`, or a generator for a stream.
            An exception is raised. Anything else is the response, or for a stream the responses in order.

    Raises:
        UsageError: the interface has no such method. A method that was given no answer raises `Unimplemented`.
    """
    specs = endpoints_of(interface)
    unknown = sorted(answers.keys() - specs.keys())
    if unknown:
        raise UsageError(f"{interface.__qualname__} has no method {', '.join(unknown)}: it has {', '.join(specs)}")
    methods = {name: _method(spec, answers.get(name, _nothing(interface, name))) for name, spec in specs.items()}
    return type(interface.__name__, (_Fake,), methods)()


class _Fake:
    def __init__(self) -> None:
        self.calls: list[Call] = []


def _nothing(interface: type[Any], name: str) -> Exception:
    return Unimplemented(f"the fake {interface.__qualname__} was given no answer: fake(..., {name}=...)")


def _method(spec: EndpointSpec, answer: Any) -> Callable[..., Any]:
    async def reply(self: _Fake, *arguments: Any) -> Any:
        taken: list[Any] = []
        if spec.client_stream:
            arguments = (_noting(arguments[0], taken),)
        self.calls.append(Call(spec.method, taken if spec.client_stream else _first(arguments)))
        if _is_error(answer):
            raise answer
        if callable(answer):
            result = answer(*arguments)
            return await result if inspect.isawaitable(result) else result
        if spec.client_stream:
            async for _ in arguments[0]:
                pass
        return answer

    async def stream(self: _Fake, *arguments: Any) -> AsyncIterator[Any]:
        async for item in _items(await reply(self, *arguments)):
            yield item

    method: Callable[..., Any] = stream if spec.server_stream else reply
    names = ["self", "request"] if spec.takes else ["self"]
    # The server compares the parameters with those of the interface.
    signature = inspect.Signature([Parameter(name, Parameter.POSITIONAL_ONLY) for name in names])
    method.__signature__ = signature  # type: ignore[attr-defined]  # functions may have one, says PEP 362
    return method


def _is_error(answer: Any) -> bool:
    return isinstance(answer, BaseException) or (isinstance(answer, type) and issubclass(answer, BaseException))


def _first(arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments else None


async def _noting(requests: AsyncIterator[Any], taken: list[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        taken.append(request)
        yield request


async def _items(items: Any) -> AsyncIterator[Any]:
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
