"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re
from typing import Final

_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION: Final = rf"(?:{_PART})+"
_BYTES: Final = {
    "": 1,
    "b": 1,
    "k": 1024,
    "kib": 1024,
    "kb": 1000,
    "m": 1024**2,
    "mib": 1024**2,
    "mb": 1000**2,
    "g": 1024**3,
    "gib": 1024**3,
    "gb": 1000**3,
}
_SIZE: Final = r"(\d+(?:\.\d+)?)\s*([a-z]*)"


def parse_number(text: str) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def parse_duration(text: str) -> float:
    """Seconds: a plain number, or a duration in the form of Go's `time.ParseDuration`, such as `1m30s`.

    Raises:
        ValueError: neither.
    """
    if not re.fullmatch(_DURATION, text):
        return parse_number(text)
    return math.fsum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, text))


def parse_size(text: str) -> int:
    """Bytes: a whole number, or one with a unit: `64k` and `64KiB` count in 1024, `64kB` in 1000.

    Raises:
        ValueError: neither, or not a whole number of bytes.
    """
    match = re.fullmatch(_SIZE, text.lower())
    if match is None or match[2] not in _BYTES:
        raise ValueError(text)
    size = float(match[1]) * _BYTES[match[2]]
    if not size.is_integer():
        raise ValueError(text)
    return int(size)


def format_duration(seconds: float) -> str:
    """Seconds as a duration: `1m30s`, `100ms`."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.6g}ms"
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = (f"{hours:.0f}h" if hours else "", f"{minutes:.0f}m" if minutes else "", f"{rest:.6g}s" if rest else "")
    return "".join(parts) or "0s"


def format_size(size: int) -> str:
    """Bytes with the largest unit that divides them: `4MiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit.lower()] == 0:
            return f"{size // _BYTES[unit.lower()]}{unit}"
    return str(size)
