"""Numbers that JSON does not have."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from pymicro.codec._faults import Misfit, join


def refuse_nan(value: Any) -> None:
    """Raise `Misfit` for a NaN or infinity anywhere in the value, which msgspec would write as null."""
    _search(msgspec.to_builtins(value, enc_hook=_skip, builtin_types=(bytes, bytearray, memoryview)), "")


def _skip(value: Any) -> None:
    """Models and messages write their numbers themselves."""


def _search(value: Any, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Misfit(path, f"{value} has no form in JSON")
    if isinstance(value, dict):
        for key, item in value.items():
            _search(item, join(path, str(key)))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            _search(item, f"{path}[{index}]")
