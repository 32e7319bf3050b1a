"""What the driver logs and a link says itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

_LOGGERS: Final = ("aiormq.connection", "aiormq.channel")

#: How these messages begin. The driver writes them for every attempt, and some with a traceback.
_SAID: Final = (
    "error when creating transport",
    "Cancelling cause reader exited abnormally",
    "Unexpected connection close from remote",
    "Server connection %r was stuck",
    "Got frame for closed channel",
    "Closing channel %r",
)

#: Whether this task belongs to a link: the driver's own tasks begin in it.
_ours: Final[ContextVar[bool]] = ContextVar("pymicro_rabbitmq_link", default=False)


class _Said(logging.Filter):
    """Leaves out what links say themselves, of their connections."""

    def __init__(self) -> None:
        super().__init__()
        self._users = 0
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        return not (str(record.msg).startswith(_SAID) and (_ours.get() or _is_ours(record.args)))

    def add(self, users: int) -> None:
        """One user more, or one less."""
        with self._lock:
            before, self._users = self._users, self._users + users
            for name in _LOGGERS:
                if not before:
                    logging.getLogger(name).addFilter(self)
                elif not self._users:
                    logging.getLogger(name).removeFilter(self)


_said: Final = _Said()


@contextmanager
def quiet() -> Iterator[None]:
    """While a link runs, in its task."""
    token = _ours.set(True)
    _said.add(1)
    try:
        yield
    finally:
        _said.add(-1)
        _ours.reset(token)


def _is_ours(arguments: Any) -> bool:
    """Whether the driver speaks of a channel of a link's connection."""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else None
    return getattr(getattr(first, "connection", None), "of_link", False)
