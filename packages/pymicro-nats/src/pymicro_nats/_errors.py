"""The one mapping of the driver's errors to pymicro's."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from typing import Final

from nats import errors

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError, PymicroError, TooLarge

#: What the server says of somebody who may not. The driver hands it on in lower case.
_VIOLATION: Final = re.compile(r'permissions violation for (publish|subscription) to "(.*?)"')

#: What the server says when credentials are wrong, missing, expired or withdrawn.
_AUTHENTICATION: Final = re.compile("authorization|authentication", re.IGNORECASE)


def violation(error: Exception) -> tuple[str, str] | None:
    """What was refused, `publish` or `subscription`, and the subject in lower case; None for another error."""
    found = _VIOLATION.search(str(error))
    return (found[1], found[2]) if found else None


def is_driver(error: BaseException) -> bool:
    """Whether the driver or the network raised it, and not our own code."""
    return isinstance(error, errors.Error | OSError | asyncio.TimeoutError)


def mapped(error: BaseException, address: str, who: str) -> PymicroError:
    """The error to raise for one of the driver's, `from` it.

    Args:
        error: what the driver raised.
        address: the server.
        who: the user, for refusals.
    """
    if isinstance(error, PymicroError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return BackendRefused(f"the server's certificate is not trusted: {error.verify_message}", address)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return BackendRefused(f"no TLS connection came about: {error.reason or error}", address)
    if isinstance(error, errors.MaxPayloadError):
        return TooLarge("message is over the NATS server's limit")
    if isinstance(error, errors.BadSubjectError):
        return ConfigurationError("no such subject is possible")
    if isinstance(error, errors.AuthorizationError) or _AUTHENTICATION.search(str(error)):
        return BackendRefused(f"the server does not let {who} in: {_text(error)}", address)
    if isinstance(error, asyncio.TimeoutError):
        return BackendUnavailable("no answer in time", address)
    return BackendUnavailable(_text(error), address)


def _text(error: BaseException) -> str:
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own text says less
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).removeprefix("nats: ").strip("'") or repr(error)
