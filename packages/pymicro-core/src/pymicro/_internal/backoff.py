"""How long to wait after failures in a row."""

from __future__ import annotations

import random
from typing import Final

#: 2 ** 64 seconds are for ever; a larger exponent would only overflow.
_MOST_DOUBLINGS: Final = 64


def backoff(failures: int, *, first: float, longest: float) -> float:
    """Seconds to wait after `failures` failures in a row, at least 1: doubling, with jitter.

    The result lies between half of `first * 2 ** (failures - 1)`, at most `longest`, and all of it: many who failed
    together do not come back together.
    """
    return random.uniform(0.5, 1.0) * min(longest, first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))
