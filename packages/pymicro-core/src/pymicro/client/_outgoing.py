"""Requests on their way out."""

from __future__ import annotations

from pymicro.client._method import Method
from pymicro.errors import UsageError
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.rpc import Request, names


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


def numbered(message: Message, number: str) -> Message:
    """The message of a call as if it were a stream called `number`, of which it is the only message.

    A go-micro server tells the requests of an HTTP connection apart by nothing but this header: without it, one that
    arrives before the server has put the one before away is lost (`server/rpc_server.go`, `ServeConn`).
    """
    headers = message.headers
    fields = (*headers.added, (names.STREAM, number))
    return Message(headers.base.add(fields) if headers.base is not None else Headers(fields), message.body)
