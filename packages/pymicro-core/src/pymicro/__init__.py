"""pymicro: Go Micro's model for Python. Start with `Service`."""

from pymicro import errors
from pymicro.broker import Delivery, RetryPolicy
from pymicro.client import Client, Publisher
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.rpc import Context, Middleware, Request, Response, call_options, context, endpoint
from pymicro.service import Service

__all__ = [
    "Client",
    "Context",
    "Delivery",
    "Headers",
    "Message",
    "Middleware",
    "Publisher",
    "Request",
    "Response",
    "RetryPolicy",
    "Service",
    "call_options",
    "context",
    "endpoint",
    "errors",
]
