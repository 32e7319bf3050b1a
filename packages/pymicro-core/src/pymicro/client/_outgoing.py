"""Requests on their way out."""

from __future__ import annotations

from pymicro.client._method import Method
from pymicro.errors import UsageError
from pymicro.rpc import Request


class Outgoing(Request, kw_only=True):
    """A request on the client's side.

    Attributes:
        method: what is called.
        sent: whether any of it may have reached a node.
    """

    method: Method
    sent: bool = False


def outgoing(request: Request) -> Outgoing:
    """The request that went through middleware.

    Raises:
        UsageError: middleware handed on another one.
    """
    if not isinstance(request, Outgoing):
        raise UsageError("client middleware must pass on the request that it was given")
    return request
