"""Commands of NATS's protocol, and what fits into them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pymicro.errors import ConfigurationError, TooLarge

_UNFIT: Final = re.compile(r"[\s\0]|^$")
_UNFIT_NAME: Final = re.compile(r"[^!-9;-~]|^$")
_NO_LINES: Final = str.maketrans("\r\n", "  ")


def publish(subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None, most: int) -> bytes:
    """The command that publishes.

    Args:
        subject, payload, headers: of the message.
        reply: where to answer; empty for nowhere.
        most: bytes that the server takes.

    Raises:
        TooLarge: it takes fewer.
        ConfigurationError: there is no such subject, or no header of that name.
    """
    if _UNFIT.search(subject):
        raise ConfigurationError("no such subject is possible")
    block = _block(headers) if headers else b""
    size = len(block) + len(payload)
    if size > most:
        limit = most - len(block)
        raise TooLarge(f"message of {len(payload)} bytes is over the NATS server's limit of {limit} (max_payload)")
    if block:
        return b"".join((f"HPUB {subject} {reply} {len(block)} {size}\r\n".encode(), block, payload, b"\r\n"))
    return b"".join((f"PUB {subject} {reply} {size}\r\n".encode(), payload, b"\r\n"))


def _block(headers: Mapping[str, str]) -> bytes:
    lines = ["NATS/1.0"]
    for name, value in headers.items():
        if _UNFIT_NAME.search(name):
            raise ConfigurationError(f"no header of a NATS message can be called {name!r}")
        lines.append(f"{name}: {value.strip().translate(_NO_LINES)}")
    return "\r\n".join([*lines, "\r\n"]).encode()
