"""The order in which deliveries are handled: one lane per key. Pure; no I/O, no tasks."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Hashable, Iterator
from operator import itemgetter
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)


class _Lane(Generic[H]):
    __slots__ = ("key", "out", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.waiting: deque[tuple[int, H]] = deque()
        self.out = 0


class Lanes(Generic[H]):
    """Items that wait for their turn.

    Items of one key share a lane. What `take` hands out of a lane closes it until all of it was released, so of one
    key one group is out at a time. An item without a key waits for nobody.
    """

    def __init__(self) -> None:
        self._free: deque[tuple[int, H]] = deque()
        self._keyed: dict[str, _Lane[H]] = {}
        self._open: deque[_Lane[H]] = deque()
        self._out: dict[H, tuple[int, _Lane[H] | None]] = {}
        self._numbers = itertools.count()
        #: How many items `take` could hand out now.
        self.ready = 0

    def add(self, key: str | None, item: H) -> None:
        """Put an item at the end of its lane."""
        numbered = next(self._numbers), item
        if key is None:
            self._free.append(numbered)
            self.ready += 1
            return
        lane = self._keyed.get(key)
        if lane is None:
            lane = self._keyed[key] = _Lane(key)
        lane.waiting.append(numbered)
        if not lane.out:
            self.ready += 1
            if len(lane.waiting) == 1:
                self._open.append(lane)

    def take(self, size: int) -> list[H]:
        """Hand out at most `size` items, in the order in which they were added."""
        if size == 1 and self._free and not self._open:  # the most common case
            number, item = self._free.popleft()
            self.ready -= 1
            self._out[item] = number, None
            return [item]
        taken: list[tuple[int, H]] = []
        while len(taken) < size and (self._open or self._free):
            if self._open and not (self._free and self._free[0][0] < self._open[0].waiting[0][0]):
                taken += self._take_lane(size - len(taken))
            else:
                numbered = self._free.popleft()
                self.ready -= 1
                self._out[numbered[1]] = numbered[0], None
                taken.append(numbered)
        if len(taken) > 1:
            taken.sort(key=itemgetter(0))
        return [item for _, item in taken]

    def _take_lane(self, size: int) -> Iterator[tuple[int, H]]:
        """From the lane that opened first."""
        lane = self._open.popleft()
        self.ready -= len(lane.waiting)
        while lane.waiting and lane.out < size:
            numbered = lane.waiting.popleft()
            self._out[numbered[1]] = numbered[0], lane
            lane.out += 1
            yield numbered

    def release(self, item: H, *, again: bool = False) -> None:
        """Take back an item that was handed out: it is done, or has its old place `again`."""
        number, lane = self._out.pop(item)
        if lane is None:
            if again:
                self._free.append((number, item))
                self.ready += 1
            return
        lane.out -= 1
        if again:
            bisect.insort(lane.waiting, (number, item), key=itemgetter(0))
        if lane.out:
            return
        if lane.waiting:
            self._open.append(lane)
            self.ready += len(lane.waiting)
        else:
            del self._keyed[lane.key]
