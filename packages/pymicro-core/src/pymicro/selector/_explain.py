"""Why no node can be picked, in words that say what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from pymicro.errors import NoNode, NoOtherNode
from pymicro.registry import Entry
from pymicro.selector._rotation import Member, Standing
from pymicro.selector._types import Filter

_ID: Final = "pymicro.selector"
_NODES_SHOWN: Final = 10
_NAME_SHOWN: Final = 100


class Scene:
    """What is known at the moment of the failure.

    Args:
        entry: of the service.
        registry: its registry's name.
        now: the monotonic clock.
    """

    def __init__(self, entry: Entry, registry: str, now: float) -> None:
        self._entry = entry
        self._service = repr(entry.name[:_NAME_SHOWN])
        self._registry = repr(registry)
        self._now = now

    def nobody(self) -> NoNode:
        """No node is known at all."""
        if self._entry.error is None:
            return NoNode(
                f"nobody has registered {self._service} in the registry {self._registry} ({self._age()}); "
                "start it, with the same --registry and --registry_address as here",
                _ID,
            )
        return NoNode(
            f"no node of {self._service} is known: the registry {self._registry} cannot be asked since "
            f"{self._entry.age(self._now):.1f} s: {self._entry.error}; check --registry and --registry_address",
            _ID,
        )

    def filtered(self, filters: Iterable[Filter], members: Sequence[Member]) -> NoNode:
        """There are nodes, and the filters want none of them."""
        wanted = ", ".join(str(filter) for filter in filters)
        return NoNode(
            f"no node of {self._service} passes the filters ({wanted}): the registry {self._registry} has "
            f"{self._nodes(members)} ({self._age()})",
            _ID,
        )

    def tried(self, members: Sequence[Member]) -> NoOtherNode:
        """There are nodes, and this call has tried them all."""
        return NoOtherNode(
            f"every node of {self._service} was tried in this call: {self._nodes(members)} "
            f"(registry {self._registry}, {self._age()})",
            _ID,
        )

    def _age(self) -> str:
        age = f"its data is {self._entry.age(self._now):.1f} s old"
        return age if self._entry.error is None else f"{age}: {self._entry.error}"

    def _nodes(self, members: Collection[Member]) -> str:
        shown = [self._node(member) for member in list(members)[:_NODES_SHOWN]]
        if len(members) > _NODES_SHOWN:
            shown.append(f"and {len(members) - _NODES_SHOWN} more")
        return "; ".join(shown)

    def _node(self, member: Member) -> str:
        text = f"{member.node.id} at {member.node.address}, version {member.service.version}"
        if member.standing is not Standing.IN:
            return f"{text}, left out since {self._now - member.out_since:.1f} s because: {member.fault}"
        if member.fault:
            return f"{text}, {self._now - member.fault_at:.1f} s ago: {member.fault}"
        return text
