"""The broker's contract: topics, and messages that wait in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from pymicro.broker._types import Capability, Delivery, Settlement
from pymicro.message import Message
from pymicro.plugins.toolkit import Component


class Consumer(ABC):
    """A subscription as its plugin sees it: a source of deliveries. The core does the rest.

    Attributes:
        lease: seconds for which a delivery is lent before the broker hands it to another consumer, unless `extend`
            is called, which takes `REDELIVERY`; None: for as long as this consumer lives.
    """

    lease: float | None = None

    @property
    @abstractmethod
    def attached(self) -> bool:
        """Whether the broker will hand messages to this consumer now; False during an outage."""

    @abstractmethod
    async def receive(self, max: int) -> Sequence[Delivery[Any]]:
        """Wait for deliveries: at least one, at most `max`. Cancellation loses none.

        Never more than the `prefetch` of `consume` are unsettled at a time. During an outage it waits; the plugin
        attaches again by itself.

        Raises:
            Closed: the consumer was closed.
        """

    @abstractmethod
    async def settle(self, delivery: Delivery[Any], settlement: Settlement) -> None:
        """Tell the broker what became of a delivery. A second settlement of one delivery has no effect.

        The core asks for a `Retry` only where `REDELIVERY` is declared, and for a delay only where `DELAY` is.

        Raises:
            BackendUnavailable: the broker cannot be told; it will deliver the message again.
        """

    @abstractmethod
    async def extend(self, delivery: Delivery[Any]) -> None:
        """Hold a delivery longer, for brokers that lend messages for a time; a no-op for others."""

    @abstractmethod
    async def detach(self) -> None:
        """Take no more messages; `receive` hands out what is here already, then raises `Closed`. Idempotent."""

    @abstractmethod
    async def aclose(self) -> None:
        """Detach and release. Unsettled deliveries go back to the broker. Idempotent."""


class Broker(Component):
    """Topics, and messages that wait in them. All methods may be called concurrently.

    Attributes:
        name: the name in node metadata, such as `nats`.
        capabilities: what this instance promises, as it is configured.
    """

    name: str = ""
    capabilities: frozenset[Capability] = frozenset()

    @abstractmethod
    async def publish(
        self, topic: str, message: Message, *, key: str | None = None, keep: bool = False, timeout: float
    ) -> None:
        """Publish one message; returns when the broker has it. Nobody needs to be subscribed.

        Args:
            topic: any text; a plugin maps what its backend cannot have in a name, or refuses it.
            message: headers and body; headers arrive as they are.
            key: messages of one key keep their order, where `ORDERED` is declared; None for no order.
            keep: hold the message though nobody ever subscribed to the topic, where `AT_LEAST_ONCE` is declared, for
                who asks for it with the plugin's `native` options or its queue. So are dead letters published.
            timeout: seconds for the whole of it.

        Raises:
            BackendUnavailable: not known to have arrived.
            BackendRefused: the broker said no.
            TooLarge: over the broker's limit.
        """

    @abstractmethod
    async def consume(self, topic: str, *, queue: str = "", prefetch: int = 64, native: Any = None) -> Consumer:
        """Attach to a topic. Messages published after it returns are delivered.

        Args:
            topic: as in `publish`.
            queue: consumers of one queue share the messages; empty: this consumer gets all of them.
            prefetch: how many deliveries may be unsettled at a time.
            native: the plugin's own subscription options; None for its defaults.

        Raises:
            BackendUnavailable, BackendRefused: as in `publish`.
            InvalidOption: `native` is of another plugin.
        """
