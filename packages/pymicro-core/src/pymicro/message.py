"""The one unit that transports and brokers move."""

from __future__ import annotations

import msgspec

from pymicro.metadata import EMPTY, Headers


class Message(msgspec.Struct, frozen=True, gc=False):
    """Headers and a body.

    Attributes:
        headers: the message's headers.
        body: the encoded body; empty for none.
    """

    headers: Headers = EMPTY
    body: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of the body and of all header names and values."""
        headers = self.headers.lowered
        return len(self.body) + sum(map(len, headers)) + sum(map(len, headers.values()))
