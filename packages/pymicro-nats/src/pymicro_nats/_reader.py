"""Finds messages among what a server sends: https://docs.nats.io/reference/reference-protocols/nats-protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

#: Takes a message as it came: subject, the subject for the answer, payload, and the block of headers or None.
Tap = Callable[[bytes, bytes, bytes, bytes | None], None]

_END: Final = b"\r\n"

#: Words of a message's line, without the subject for the answer.
_WORDS: Final = {b"MSG": 4, b"HMSG": 5}

#: Bytes of a line and of a message that a server never goes beyond; its own limit for `max_payload` is 64 MiB.
_LONGEST_LINE: Final = 1024**2
_LARGEST: Final = 65 * 1024**2


class Reader:
    """Hands the messages of some subscriptions to functions that do not wait, and all else to the driver.

    Args:
        taps: the functions by the number of their subscription; it may change at any time.
        others: takes each line and message that is none of theirs, as it came.
    """

    def __init__(self, taps: Mapping[int, Tap], others: Callable[[bytes], None]) -> None:
        self._taps = taps
        self._others = others
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes without which nothing can be done with the pieces

    def feed(self, data: bytes) -> None:
        """Take what the server sent, wherever it was cut.

        Raises:
            ValueError: no server sends that; nothing more can be read.
        """
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data, self._pieces = b"".join(self._pieces), []
        at, there = 0, len(data)
        while at < there:
            end = data.find(_END, at)
            if end < 0:
                if there - at > _LONGEST_LINE:
                    raise ValueError("a line without an end")
                self._pieces, self._missing = [data[at:]], 1
                return
            words = data[at:end].split(b" ")
            begin = end + 2
            fewest = _WORDS.get(words[0])
            if fewest is None:
                self._others(data[at:begin])
                at = begin
                continue
            number, headers, size = _numbers(words, fewest)
            after = begin + size + 2
            if after > there:
                self._pieces, self._missing = [data[at:]], after - there
                return
            function = self._taps.get(number)
            if function is None:
                self._others(data[at:after])
            else:
                reply = words[3] if len(words) > fewest else b""
                block = data[begin : begin + headers] if headers else None
                function(words[1], reply, data[begin + headers : after - 2], block)
            at = after


def _numbers(words: list[bytes], fewest: int) -> tuple[int, int, int]:
    """Of the subscription, and of the bytes of headers and all."""
    if len(words) - fewest in (0, 1):
        try:
            number, size = int(words[2]), int(words[-1])
            headers = int(words[-2]) if fewest > 4 else 0
            if 0 <= headers <= size <= _LARGEST:
                return number, headers, size
        except ValueError:
            pass  # it ends as other nonsense does
    raise ValueError("a message whose line makes no sense")
