"""Ids that nobody else has."""

from __future__ import annotations

import itertools
import os
import uuid
from typing import Final


class _Ids:
    """Ids of one process: a random part that they share, and a number that begins anywhere."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        text = str(uuid.uuid4())
        self._shared = text[:24]
        self._numbers = itertools.count(int(text[24:], 16) // 2)  # half of them are left to count

    def new(self) -> str:
        return f"{self._shared}{next(self._numbers):012x}"


_ids: Final = _Ids()


def new_id() -> str:
    """A UUID in the form of RFC 9562's version 4. Each call of `uuid.uuid4` asks the system; this does once a process.

    It can be foretold from the one before, so it is no secret.
    """
    return _ids.new()
