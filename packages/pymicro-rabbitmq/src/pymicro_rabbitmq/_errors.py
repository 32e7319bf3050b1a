"""The driver's exceptions as pymicro's: the one place where they are mapped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiormq import exceptions as driver

from pymicro.errors import BackendRefused, BackendUnavailable, ConnectionFailed, PymicroError
from pymicro.plugins.toolkit import connection_problem

_REFUSALS: Final = (
    driver.AuthenticationError,
    driver.ProbableAuthenticationError,
    driver.ConnectionNotAllowed,
    driver.ChannelAccessRefused,
    driver.ChannelLockedResource,
    driver.ChannelPreconditionFailed,
    driver.DeliveryError,
    ValueError,  # what AMQP cannot express, such as the name of a header that is too long
    TypeError,
)
_REFUSED_CODES: Final = (403, 530)  # of a connection that is closed while it is set up


def mapped(error: BaseException, address: str) -> ConnectionFailed:
    """What the caller sees for an exception of the driver."""
    if isinstance(error, ConnectionFailed):
        return error
    if isinstance(error, TimeoutError):
        return BackendUnavailable("no answer in time", address)
    if isinstance(error, OSError) and not isinstance(error, driver.AMQPError):
        return BackendUnavailable(connection_problem(error), address)
    refused = isinstance(error, _REFUSALS) or (
        isinstance(error, driver.ConnectionClosed) and error.args[:1] in [(code,) for code in _REFUSED_CODES]
    )
    return (BackendRefused if refused else BackendUnavailable)(reason(error), address)


def reason(error: BaseException) -> str:
    """What the server said, or the driver."""
    texts = [str(arg) for arg in error.args if isinstance(arg, str | OSError) and str(arg)]
    if isinstance(error, driver.DeliveryError):
        return "the server could not put the message into a queue: it is full, or failed"
    return texts[-1] if texts else type(error).__name__


@contextmanager
def mapping(address: str) -> Iterator[None]:
    """Inside, exceptions of the driver become pymicro's."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > before:
            raise
        # Nobody cancelled this task: the driver ends what waits for a connection that it closes in this way.
        raise BackendUnavailable("the connection was closed", address) from error
    except PymicroError:
        raise
    except Exception as error:  # of a server that sends nonsense the driver raises whatever its parser does
        raise mapped(error, address) from error
