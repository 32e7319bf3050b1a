"""Waiting between attempts, and one line in the log when a fault begins and one when it ends."""

from __future__ import annotations

import logging
import random
from typing import Any, Final

from pymicro.plugins.toolkit import log

_FIRST: Final = 0.1
_LONGEST: Final = 1.0  # a server that comes back is found soon


class Fault:
    """A subscription that does not reach its server.

    Args:
        logger: for the lines.
        fields: what they say besides.
    """

    def __init__(self, logger: logging.Logger, **fields: Any) -> None:
        self._logger = logger
        self._fields = fields
        self._failures = 0

    def failed(self, error: Exception) -> float:
        """It happened, perhaps again; seconds to wait."""
        self._failures += 1
        if self._failures == 1:
            log(self._logger, logging.WARNING, "subscription interrupted", **self._fields, error=str(error))
        return min(_LONGEST, _FIRST * 2.0 ** min(self._failures - 1, 10)) * random.uniform(0.5, 1.0)

    def ended(self) -> None:
        """It works."""
        if self._failures:
            log(self._logger, logging.INFO, "subscription works again", **self._fields)
        self._failures = 0
