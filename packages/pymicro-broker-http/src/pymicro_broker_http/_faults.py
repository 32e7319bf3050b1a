"""What goes wrong with subscribers, and who is left out for it, so that it holds up few publishers."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from typing import Final

from pymicro.clock import Clock
from pymicro.errors import BackendUnavailable, ConnectionFailed
from pymicro.plugins.toolkit import log
from pymicro.record import Node

#: Seconds for which a process is left out after a fault; they double with each one that follows.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0

#: It is left out at least so many times as long as the fault took to show: one that hangs costs a third of the time.
_REST: Final = 2


class Gone(ConnectionFailed):
    """The process is there, and the subscription is not any more."""


class Full(BackendUnavailable):
    """The subscriber is there, and has no room for the message."""


class Silent(BackendUnavailable):
    """No answer in time: the message may have arrived. Go Micro answers when its handler has run."""


class _Fault:
    __slots__ = ("count", "until")

    def __init__(self) -> None:
        self.count = 0
        self.until = 0.0


class Faults:
    """Which processes are left out, and until when. One line is logged when that begins and one when it ends.

    Args:
        clock: the time.
        logger: for those lines.
    """

    def __init__(self, clock: Clock, logger: logging.Logger) -> None:
        self._clock = clock
        self._logger = logger
        self._faults: dict[str, _Fault] = {}
        self._answers: dict[str, float] = {}

    def left_out(self, node: Node) -> bool:
        """Whether the subscriber shall not be tried now."""
        fault = self._faults.get(node.address)
        return fault is not None and self._clock.monotonic() < fault.until

    def failed(self, node: Node, error: Exception, took: float) -> None:
        """It could not be reached, which took so many seconds to find out.

        One that answered others meanwhile is there, and only slow: it is not left out.
        """
        now = self._clock.monotonic()
        if isinstance(error, Silent) and self._answers.get(node.address, -math.inf) > now - took:
            return
        again = self.left_out(node)  # several messages were on their way
        fault = self._faults.setdefault(node.address, _Fault())
        if not again:
            fault.count += 1
        pause = min(max(FIRST_PAUSE * 2 ** min(fault.count - 1, 10), took * _REST), LONGEST_PAUSE)
        fault.until = max(fault.until, now + pause)
        if fault.count == 1 and not again:
            log(self._logger, logging.WARNING, "subscriber left out", node=node.id, error=str(error))

    def works(self, node: Node) -> None:
        """It answered."""
        self._answers[node.address] = self._clock.monotonic()
        if self._faults.pop(node.address, None) is not None:
            log(self._logger, logging.INFO, "subscriber back", node=node.id, address=node.address)

    def keep(self, addresses: Collection[str]) -> None:
        """Forget all others: the registry does not have them any more."""
        self._faults = {address: fault for address, fault in self._faults.items() if address in addresses}
        self._answers = {address: when for address, when in self._answers.items() if address in addresses}
