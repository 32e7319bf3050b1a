"""When a call is tried again, and how long that waits."""

from __future__ import annotations

import random
from typing import Final

from pymicro.clock import Clock
from pymicro.errors import ConnectionFailed, DialFailed, Error

_FIRST: Final = 0.02
_LONGEST: Final = 1.0
_RESERVE: Final = 10.0


def may_repeat(error: Error | ConnectionFailed, *, idempotent: bool) -> bool:
    """Whether the call may be tried again: the failure may pass, and running the handler twice does no harm."""
    return error.transient and (error.executed == "no" or idempotent)


def delay(attempt: int) -> float:
    """Seconds before attempt number `attempt + 1`: doubling, with full jitter so that callers do not march in step."""
    return random.uniform(0.5, 1.0) * min(_LONGEST, _FIRST * 2.0 ** (attempt - 1))


class Budget:
    """Keeps retries to a share of the calls, so that a failing service is not flooded with repetitions.

    Attempts that never reached a node cost nothing.

    Args:
        share: retries allowed for each call; a reserve of ten refills at one a second.
        clock: refills the reserve.
    """

    def __init__(self, share: float, clock: Clock) -> None:
        self._share = share
        self._monotonic = clock.monotonic
        self._tokens = _RESERVE
        self._since = clock.monotonic()

    def earn(self) -> None:
        """A call was made."""
        if self._tokens < _RESERVE:
            self._tokens += self._share

    def spend(self, error: Error | ConnectionFailed) -> bool:
        """Whether a retry after `error` is within the budget."""
        if isinstance(error, DialFailed):
            return True
        now = self._monotonic()
        self._tokens = min(_RESERVE, self._tokens + (now - self._since))
        self._since = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
