"""How far a queue is with one partition. Pure; no I/O.

An offset that is committed says that everything below it is done. What was settled out of order, and how often the
rest was handed out, stands in the text that Kafka keeps beside the offset: so the next owner of the partition repeats
nothing that is done, and goes on counting.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

#: Kafka takes 4096 bytes of text beside an offset, unless it is told otherwise (`offset.metadata.max.bytes`).
LONGEST: Final = 4000

#: Offsets beyond the first unsettled one that may be handed out meanwhile.
WINDOW: Final = 100_000

#: Records of one partition that may be handed out and unsettled at a time, so that the text stays within its bound.
MOST: Final = 200

_TEXT: Final = re.compile(r"pymicro/1 (\d+) ?(\S*)")
_RUN: Final = re.compile(r"(\d+)\+(\d+)(?:x(\d+))?")


class Progress:
    """What became of the records of one partition.

    Args:
        first: the first offset that is not done.
        text: what stands beside it in the commit; text of another client counts as none.
        partitions: how many the topic had when the queue began; of a text that says it, that number.
    """

    def __init__(self, first: int, text: str = "", partitions: int = 0) -> None:
        self.first = first
        #: The next offset that was not looked at yet.
        self.seen = first
        self.partitions = partitions
        self._done: list[tuple[int, int]] = []  # disjoint, ascending, none touching another; ends are excluded
        self._counts: dict[int, int] = {}
        self._held: set[int] = set()
        if found := _TEXT.fullmatch(text or ""):
            self.partitions = int(found[1])
            self._read(found[2])

    def _read(self, runs: str) -> None:
        for start, length, count in _RUN.findall(runs):
            begin = self.first + int(start)
            end = begin + min(int(length), WINDOW)
            if count:
                self._counts.update(dict.fromkeys(range(begin, end), int(count)))
            else:
                self._add(begin, end)

    @property
    def text(self) -> str:
        """What to commit beside `first`."""
        runs = ""
        for start, end, count in sorted([*((begin, end, 0) for begin, end in self._done), *self._counted()]):
            run = f"{start - self.first}+{end - start}{f'x{count}' if count else ''},"
            if len(runs) + len(run) > LONGEST - 32:
                break
            runs += run
        return f"pymicro/1 {self.partitions} {runs}".rstrip()

    def _counted(self) -> Iterator[tuple[int, int, int]]:
        """Neighbours that were handed out equally often, together."""
        start = end = count = 0
        for offset in sorted(self._counts):
            if offset != end or self._counts[offset] != count:
                if count:
                    yield start, end, count
                start, count = offset, self._counts[offset]
            end = offset + 1
        if count:
            yield start, end, count

    def arrived(self, offset: int) -> bool:
        """Look at the next record; whether it is to be handed out. What lies before it and never came is done."""
        if offset < self.seen:
            return False
        if offset > self.seen:  # removed, or no record but a mark of a transaction
            for gone in [known for known in self._counts if self.seen <= known < offset]:
                del self._counts[gone]
            self._add(self.seen, offset)
        self.seen = offset + 1
        return not self._is_done(offset)

    @property
    def busy(self) -> bool:
        """Whether records are handed out and unsettled."""
        return bool(self._held)

    @property
    def full(self) -> bool:
        """Whether some must be settled before more are handed out."""
        return len(self._held) >= MOST or self.seen - self.first > WINDOW

    def claim(self, offset: int) -> int:
        """Hand a record out: how often that happened, this time included."""
        self._counts[offset] = count = self._counts.get(offset, 0) + 1
        self._held.add(offset)
        return count

    def unclaim(self, offset: int) -> None:
        """Take it back: nobody saw it."""
        self._held.discard(offset)
        count = self._counts.pop(offset, 1) - 1
        if count:
            self._counts[offset] = count

    def release(self, offset: int) -> None:
        """It was handed out and shall be again."""
        self._held.discard(offset)

    def settle(self, offset: int) -> None:
        """It is done."""
        self._held.discard(offset)
        self._counts.pop(offset, None)
        self._add(offset, offset + 1)

    def _is_done(self, offset: int) -> bool:
        place = bisect_right(self._done, offset, key=lambda run: run[0])
        return offset < self.first or (place > 0 and offset < self._done[place - 1][1])

    def _add(self, start: int, end: int) -> None:
        start = max(start, self.first)
        if start >= end:
            return
        kept = []
        for run in self._done:
            if run[1] < start or run[0] > end:
                kept.append(run)
            else:
                start, end = min(start, run[0]), max(end, run[1])
        if start == self.first:
            self.first = end
        else:
            kept.append((start, end))
            kept.sort()
        self._done = kept
        self.seen = max(self.seen, self.first)
