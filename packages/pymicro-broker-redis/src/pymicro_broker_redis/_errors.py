"""The one place where errors of the driver become errors of pymicro."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis import exceptions as redis_errors

from pymicro.errors import BackendRefused, BackendUnavailable, ConnectionFailed

#: Of the answers that say no, those that pass by themselves: a full disk, missing replicas, a script that runs.
_PASSING: Final = ("READONLY", "MASTERDOWN", "MISCONF", "NOREPLICAS", "BUSY")

#: A group or its stream is not there, or went away under a consumer that waits.
_GONE: Final = ("NOGROUP", "UNBLOCKED")


class GroupLost(BackendUnavailable):
    """The server does not have the consumer group any more: it lost its data, or somebody deleted them."""


@contextmanager
def mapped(address: str) -> Iterator[None]:
    """Raise errors of pymicro in place of the driver's, which become their causes; `address` is told with them."""
    try:
        yield
    except ConnectionFailed:
        raise
    except (redis_errors.AuthenticationError, redis_errors.AuthorizationError) as error:
        raise BackendRefused(f"the login was refused: {error}", address) from error
    except redis_errors.ResponseError as error:
        raise refusal(error, address) from error
    except (redis_errors.RedisError, OSError) as error:
        raise BackendUnavailable(str(error) or "no answer in time", address) from error
    except ValueError as error:  # the driver's parser lets it out
        raise BackendUnavailable(f"the server sent what is not its protocol: {error}", address) from error
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        # What uvloop says to who writes to a connection that ended.
        raise BackendUnavailable(str(error), address) from error


def refusal(error: redis_errors.ResponseError, address: str) -> ConnectionFailed:
    """The error for an answer that is one."""
    text = str(error)
    if _says(text, _GONE):
        return GroupLost(text, address)
    if is_read_only(error) or isinstance(error, redis_errors.MasterDownError) or _says(text, _PASSING):
        return BackendUnavailable(text, address)
    return BackendRefused(text, address)


def is_read_only(error: redis_errors.ResponseError) -> bool:
    """Whether the server is a replica."""
    return isinstance(error, redis_errors.ReadOnlyError) or _says(str(error), ("READONLY",))


def _says(text: str, codes: tuple[str, ...]) -> bool:
    """Whether an answer begins with one of the codes; before Redis 7 a script's error has it within."""
    return text.startswith(codes) or any(f"-{code} " in text for code in codes)
