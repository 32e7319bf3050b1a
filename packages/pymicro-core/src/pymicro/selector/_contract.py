"""The selector's contract: which node serves the next attempt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence

from pymicro.plugins.toolkit import Component
from pymicro.record import Node
from pymicro.selector._types import Filter, Pick, Strategy


class Selector(Component):
    """Chooses nodes. It learns from outcomes which of them to leave out.

    Attributes:
        name: the plugin's, such as `registry`.
    """

    name: str = ""

    @abstractmethod
    async def pick(
        self,
        service: str,
        *,
        filters: Sequence[Filter] = (),
        strategy: str | Strategy | None = None,
        exclude: Collection[str] = (),
        key: str | None = None,
    ) -> Pick:
        """The node for the next attempt. Does not wait once the service is known.

        Nodes that could not be reached lately are left out, unless there is no other.

        Args:
            service: whom to call.
            filters: applied in turn; a node must pass all.
            strategy: a strategy or its name; None for the selector's own.
            exclude: ids of nodes that this call has tried; they are never picked.
            key: for strategies that group calls; None for no group.

        Raises:
            NoOtherNode: there are nodes, and all of them are excluded.
            NoNode: there are none, or it cannot be known, or none passes the filters. The detail says which, and why.
            UsageError: no strategy has this name.
            Closed: the selector is not open.
        """

    @abstractmethod
    def age(self, service: str) -> float | None:
        """Seconds since what is known of `service` was last known to be current; None when nothing is known of it.

        0.0 while the registry would tell of a change at once.
        """

    @abstractmethod
    def on_removed(self, callback: Callable[[Node], None]) -> Callable[[], None]:
        """Call `callback(node)` when a node is gone for good, so that connections to it can be closed.

        Returns:
            A function that ends this.
        """
