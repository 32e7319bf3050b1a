"""Ids that nobody else has."""

from __future__ import annotations

import os
import random
from typing import Final

_draw: Final = random.Random()  # of its own: users seed the module's
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_draw.seed)

_RANDOM: Final = (1 << 128) - 1 ^ (0xF << 76) ^ (0b11 << 62)
_VERSION_4: Final = 4 << 76 | 0b10 << 62


def new_id() -> str:
    """A random UUID, RFC 9562. Unlike `uuid.uuid4` it asks the system for nothing, so it can be foretold: no secret."""
    text = f"{_draw.getrandbits(128) & _RANDOM | _VERSION_4:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
