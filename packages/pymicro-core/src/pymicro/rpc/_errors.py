"""Errors between exceptions and headers."""

from __future__ import annotations

import logging
import uuid

from pymicro import errors
from pymicro._internal.logs import log
from pymicro.metadata import Headers
from pymicro.rpc._names import END_OF_STREAM, ERROR, ERROR_FIELDS, ERROR_TYPE, EXECUTED


def error_fields(error: errors.Error) -> tuple[tuple[str, str], ...]:
    """The headers that carry `error`."""
    fields = [(ERROR, errors.to_wire(error))]
    if error.executed == "no":
        fields.append((EXECUTED, "no"))
    own = errors.own_fields(error)
    if own is not None:
        fields += [(ERROR_TYPE, type(error).__qualname__), (ERROR_FIELDS, own)]
    return tuple(fields)


def error_of(headers: Headers) -> errors.Error | None:
    """The error that a message carries; None when it carries none. `EOS` is not an error here."""
    lowered = headers.lowered
    text = lowered.get("micro-error")
    if not text or text == END_OF_STREAM:
        return None
    error = errors.from_wire(text, executed="no" if lowered.get("micro-executed") == "no" else "maybe")
    name = lowered.get("micro-error-type")
    return errors.specialised(error, name, lowered.get("micro-error-fields", "")) if name else error


def is_end(headers: Headers) -> bool:
    """Whether the message ends a stream without an error."""
    return headers.lowered.get("micro-error") == END_OF_STREAM


def from_exception(error: Exception, service: str, what: str, logger: logging.Logger) -> errors.Error:
    """What the caller is told of an exception in a handler.

    A pymicro `Error` travels as it is. Anything else becomes a 500 whose text names an id and nothing else; the log
    has the id and the exception.
    """
    if isinstance(error, errors.Error):
        if not error.id:
            error.id = service
        if error.relayed:
            error.executed = "maybe"  # the inner call may not have run, but the handler that made it has
        return error
    number = uuid.uuid4().hex[:12]
    log(logger, logging.ERROR, "handler failed", endpoint=what, error_id=number, error=repr(error), exc_info=error)
    return errors.InternalServerError(f"internal error {number}", service)
