"""Structured lines on the standard library's logging."""

from __future__ import annotations

import logging
from typing import Any


def log(
    logger: logging.Logger, level: int, event: str, *, exc_info: BaseException | None = None, **fields: Any
) -> None:
    """One line `event key=value ...`; the record also carries the fields as `record.fields`.

    Values with spaces or quotes are quoted, so that the line can be parsed again. `exc_info` adds the traceback of an
    error of the user's code.
    """
    if logger.isEnabledFor(level):
        text = " ".join([event, *(f"{name}={_value(value)}" for name, value in fields.items())])
        logger.log(level, "%s", text, exc_info=exc_info, extra={"event": event, "fields": fields}, stacklevel=2)


def set_up_logging(level: str) -> None:
    """Lines on stderr, unless the program set up logging itself."""
    logger = logging.getLogger("pymicro")
    logger.setLevel(level)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)


def _value(value: Any) -> str:
    text = str(value)
    return repr(text) if not text or any(c in text for c in ' "=\n') else text
