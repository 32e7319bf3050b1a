"""The one mapping of the driver's errors to pymicro's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pymicro.errors import BackendRefused, BackendUnavailable, PymicroError, TooLarge
from pymicro_broker_kafka._driver import errors as driver

_REFUSALS: Final = (
    driver.AuthorizationError,
    driver.SaslAuthenticationFailedError,
    driver.UnsupportedSaslMechanismError,
    driver.IllegalSaslStateError,
    driver.InvalidTopicError,
    driver.InvalidReplicationFactorError,
    driver.InvalidPartitionsError,
    driver.InvalidConfigurationError,
    driver.PolicyViolationError,
    driver.InconsistentGroupProtocolError,
    driver.InvalidSessionTimeoutError,
    driver.InvalidGroupIdError,
    driver.GroupMaxSizeReachedError,
    driver.KafkaConfigurationError,
    driver.UnsupportedVersionError,
    ValueError,
)
_TOO_LARGE: Final = (driver.MessageSizeTooLargeError, driver.RecordListTooLargeError)


def mapped(error: BaseException, address: str) -> PymicroError:
    """What the caller sees for an exception of the driver."""
    if isinstance(error, PymicroError):
        return error
    if isinstance(error, _TOO_LARGE):
        return TooLarge("message is over the Kafka server's limit")
    kind = BackendRefused if is_refusal(error) else BackendUnavailable
    return kind(reason(error), address)


def is_refusal(error: BaseException) -> bool:
    """Whether trying again does not help."""
    return isinstance(error, _REFUSALS)


def reason(error: BaseException) -> str:
    """What the server said, or the driver."""
    text = " ".join(str(arg) for arg in error.args if arg)
    described = getattr(error, "description", "") if isinstance(error, driver.BrokerResponseError) else ""
    said = text or described or ""
    return f"{type(error).__name__.removesuffix('Error')}: {said}" if said else type(error).__name__


@contextmanager
def mapping(address: str) -> Iterator[None]:
    """Inside, exceptions of the driver become pymicro's."""
    try:
        yield
    except PymicroError:
        raise
    except Exception as error:
        raise mapped(error, address) from error
