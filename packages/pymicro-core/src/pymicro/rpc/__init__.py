"""What client and server share: requests, middleware, endpoints, errors in headers."""

from pymicro.rpc import _names as names
from pymicro.rpc._context import CallOptions, Context, call_options, context, current, merged, options, propagated_by
from pymicro.rpc._deadline import Deadlines, Interrupt
from pymicro.rpc._endpoint import EndpointOptions, EndpointSpec, endpoint, endpoints_of
from pymicro.rpc._errors import error_fields, error_of, from_exception, is_end
from pymicro.rpc._incontext import InContext
from pymicro.rpc._request import Call, Middleware, Request, Response, chain, checked
from pymicro.rpc._schema import describe

__all__ = [
    "Call",
    "CallOptions",
    "Context",
    "Deadlines",
    "EndpointOptions",
    "EndpointSpec",
    "InContext",
    "Interrupt",
    "Middleware",
    "Request",
    "Response",
    "call_options",
    "chain",
    "checked",
    "context",
    "current",
    "describe",
    "endpoint",
    "endpoints_of",
    "error_fields",
    "error_of",
    "from_exception",
    "is_end",
    "merged",
    "names",
    "options",
    "propagated_by",
]
