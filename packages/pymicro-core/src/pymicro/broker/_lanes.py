"""The order in which deliveries are handled: one lane per key. Pure; no I/O, no tasks."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Hashable
from operator import itemgetter
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)


class _Lane(Generic[H]):
    __slots__ = ("key", "out", "waiting")

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.waiting: deque[tuple[int, H]] = deque()
        self.out = 0


class Lanes(Generic[H]):
    """Items that wait for their turn.

    Items of one key share a lane. What `take` hands out of a lane closes it until all of it was released, so of one
    key one group is out at a time. An item without a key has a lane to itself.
    """

    def __init__(self) -> None:
        self._keyed: dict[str, _Lane[H]] = {}
        self._open: deque[_Lane[H]] = deque()
        self._out: dict[H, tuple[int, _Lane[H]]] = {}
        self._numbers = itertools.count()
        #: How many items `take` could hand out now.
        self.ready = 0

    def add(self, key: str | None, item: H) -> None:
        """Put an item at the end of its lane."""
        lane = _Lane[H](key) if key is None else self._keyed.setdefault(key, _Lane(key))
        lane.waiting.append((next(self._numbers), item))
        if not lane.out:
            self.ready += 1
            if len(lane.waiting) == 1:
                self._open.append(lane)

    def take(self, size: int) -> list[H]:
        """Hand out at most `size` items, in the order in which they were added."""
        taken: list[tuple[int, H]] = []
        while self._open and len(taken) < size:
            lane = self._open.popleft()
            self.ready -= len(lane.waiting)
            while lane.waiting and len(taken) < size:
                numbered = lane.waiting.popleft()
                self._out[numbered[1]] = numbered[0], lane
                lane.out += 1
                taken.append(numbered)
        taken.sort(key=itemgetter(0))
        return [item for _, item in taken]

    def release(self, item: H, *, again: bool = False) -> None:
        """Take back an item that was handed out: it is done, or has its old place in the lane `again`."""
        number, lane = self._out.pop(item)
        lane.out -= 1
        if again:
            bisect.insort(lane.waiting, (number, item), key=itemgetter(0))
        if lane.out:
            return
        if lane.waiting:
            self._open.append(lane)
            self.ready += len(lane.waiting)
        elif lane.key is not None:
            del self._keyed[lane.key]
