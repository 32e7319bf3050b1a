"""Mistakes of set-up are told in a few lines, not in a traceback through pymicro's inside."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from pymicro.errors import ConfigurationError, PymicroError

_HERE = os.path.dirname(os.path.dirname(__file__))


def complain(error: PymicroError, advice: str = "") -> None:
    """Write what is wrong to stderr, in one line if it is one."""
    sys.stderr.write(f"error: {error} ({advice})\n" if advice else f"error: {error}\n")


def install() -> None:
    """Tell uncaught configuration errors that way, with the user's line. Leaves a hook of the program's own alone."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, ConfigurationError):
        sys.__excepthook__(kind, error, trace)
        return
    complain(error)
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith((_HERE, "<frozen"))]
    if frames:
        sys.stderr.write(f"  at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}\n")
