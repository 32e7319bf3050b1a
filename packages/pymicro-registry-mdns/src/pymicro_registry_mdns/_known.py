"""What a watch knows; no I/O and no time of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from pymicro.clock import Clock
from pymicro.record import merge
from pymicro.registry import ServiceRecord
from pymicro_registry_mdns._packets import Answer

#: Nodes of one service, or names of services, that are remembered at most.
MAX_KNOWN: Final = 1024

#: Seconds in which answers about a node that said goodbye are passed over. They were on their way before it.
LATE: Final = 0.5


def united(records: Iterable[ServiceRecord]) -> tuple[ServiceRecord, ...]:
    """Records of one node each as one record per version, in a stable order."""
    return merge(sorted(records, key=lambda record: (record.name, record.version, record.nodes[0].id)))


class Known:
    """The nodes of one service, or the names of all services, by key.

    A round begins with a question. What `saw` does not hear of until the round is judged was missed; what was missed
    often enough in a row is dropped.

    Args:
        expiry: how often in a row.
    """

    def __init__(self, expiry: int) -> None:
        self.items: dict[str, ServiceRecord] = {}
        self.full = False
        self._expiry = expiry
        self._missed: dict[str, int] = {}
        self._heard: set[str] = set()

    def begin(self) -> None:
        """A question is asked."""
        self._heard.clear()

    @property
    def complete(self) -> bool:
        """Whether somebody has answered since, and everybody who was known has."""
        return bool(self._heard) and self._heard >= self.items.keys()

    def saw(self, items: Mapping[str, ServiceRecord]) -> bool:
        """Whether an answer or announcement changes anything."""
        changed = False
        for key, record in items.items():
            if key not in self.items and len(self.items) >= MAX_KNOWN:
                self.full = True
                continue
            self._heard.add(key)
            changed |= self.items.get(key) != record
            self.items[key] = record
        return changed

    def forget(self, keys: Iterable[str]) -> bool:
        """Whether dropping these changes anything."""
        dropped = [key for key in keys if self.items.pop(key, None) is not None]
        for key in dropped:
            self._missed.pop(key, None)
        return bool(dropped)

    def judge(self) -> bool:
        """End a round: whether something was dropped because it was missed too often."""
        self._missed = {key: self._missed.get(key, 0) + 1 for key in self.items if key not in self._heard}
        return self.forget([key for key, times in self._missed.items() if times >= self._expiry])


class Departed:
    """Nodes that said goodbye a moment ago."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def announced(self, answer: Answer) -> None:
        """Note who goes and who is there again."""
        now = self._clock.monotonic()
        for instance in answer.nodes:
            self._until.pop(instance, None)
        if len(self._until) >= MAX_KNOWN:
            self._until = {instance: until for instance, until in self._until.items() if until > now}
        if len(self._until) < MAX_KNOWN:
            self._until |= dict.fromkeys(answer.gone, now + LATE)

    def without(self, answer: Answer) -> Answer:
        """The answer without nodes that have gone."""
        now = self._clock.monotonic()
        late = {instance for instance in answer.nodes if self._until.get(instance, 0.0) > now}
        if not late:
            return answer
        nodes = {instance: record for instance, record in answer.nodes.items() if instance not in late}
        return msgspec.structs.replace(answer, nodes=nodes)
