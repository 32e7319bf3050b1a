"""All partitions of a topic, for a subscription without a queue."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from pymicro_broker_kafka._client import Settings
from pymicro_broker_kafka._driver import TopicPartition
from pymicro_broker_kafka._polled import Owner, Polled
from pymicro_broker_kafka._progress import Progress

_LOOK: Final = 1.0  # seconds between two looks at the number of partitions


class Everything(Polled):
    """Reads all partitions, and joins no group.

    Args:
        settings, topic, kept, owner: as in `Polled`.
    """

    def __init__(self, settings: Settings, topic: str, kept: bool, owner: Owner) -> None:
        super().__init__(settings, topic, kept, owner)
        self._looked = 0.0

    def config(self) -> Mapping[str, Any]:
        return {}

    def begin(self) -> None:
        pass

    @property
    def hurried(self) -> bool:
        return False

    def follow(self) -> None:
        pass

    def prepare(self) -> None:
        """Take all partitions that are new."""
        now = time.monotonic()
        if now < self._looked + _LOOK and not self.lost:
            return
        self._looked = now
        there = {TopicPartition(self.topic, each) for each in self.partitions()}
        if self.lost and there:
            self.lost = False
            self.mine = set()
        if there - self.mine:
            self._take(there - self.mine)
            self.say_ready()

    def _take(self, new: set[Any]) -> None:
        begin = self.consumer.beginning_offsets if self.ready or self.kept else self.consumer.end_offsets
        offsets = begin(new, timeout_ms=self.settings.patience)
        self.consumer.assign(sorted(self.mine | new))
        for tp in new:
            self.seek(tp, offsets[tp])
        self.tell(self.owner.on_assigned, set(self.mine), {tp: Progress(offsets[tp]) for tp in new})
        self.mine |= new
