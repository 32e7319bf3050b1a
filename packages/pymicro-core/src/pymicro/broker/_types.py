"""What passes between brokers, the dispatcher and handlers."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from pymicro.errors import UsageError
from pymicro.message import Message

T = TypeVar("T")


class Capability(StrEnum):
    """What a configured broker promises beyond the contract."""

    AT_LEAST_ONCE = "at_least_once"
    """What `publish` took is delivered until it is settled, through restarts of consumer and broker."""
    ORDERED = "ordered"
    """Messages of one key arrive in the order of publishing; one that is delivered again may come after later ones."""
    QUEUES = "queues"
    """Consumers of one queue share its messages."""
    REDELIVERY = "redelivery"
    """A message settled with `Retry`, or held by a consumer that died, comes again with a higher count."""
    DELAY = "delay"
    """The delay of a `Retry` is kept by the broker itself."""


class Ack(msgspec.Struct, frozen=True):
    """The message is done."""


class Retry(msgspec.Struct, frozen=True):
    """The message shall come again.

    Attributes:
        delay: seconds before it does.
    """

    delay: float = 0.0


class Reject(msgspec.Struct, frozen=True):
    """The message is done though nobody could handle it.

    Attributes:
        reason: why, for the log.
    """

    reason: str = ""


Settlement = Ack | Retry | Reject


class Holder(Protocol):
    """Who answers for a delivery: what its methods work through."""

    @property
    def settled(self) -> bool:
        """Whether a settlement was taken."""

    async def settle(self, settlement: Settlement) -> None:
        """Take a settlement; a second one has no effect."""

    async def extend(self) -> None:
        """Hold the delivery longer."""


_MISSING: Final[Any] = object()


class Delivery(Generic[T]):
    """One message handed to one consumer.

    Plugins make it; the core decodes its body and hands it to the user's handler. Two deliveries are never equal, so
    that a plugin may keep its own things in a dict by delivery.

    Args:
        topic: where it was published.
        message: headers and body.
        key: the ordering key it was published with; None for none.
        count: how often it was delivered, this time included; 1 at first. It survives restarts of the consumer.
        native: the driver's own object, for what only that broker has.
        make_native: makes it when somebody asks, where that is not for nothing.
    """

    __slots__ = ("__weakref__", "_holder", "_make_native", "_native", "_value", "count", "key", "message", "topic")

    def __init__(
        self,
        *,
        topic: str,
        message: Message,
        key: str | None = None,
        count: int = 1,
        native: Any = None,
        make_native: Callable[[], Any] | None = None,
    ) -> None:
        self.topic = topic
        self.message = message
        self.key = key
        self.count = count
        self._native = native
        self._make_native = make_native
        self._value: T = _MISSING
        self._holder: Holder | None = None

    @property
    def native(self) -> Any:
        """The driver's own object."""
        if self._make_native is not None:
            self._native, self._make_native = self._make_native(), None
        return self._native

    @property
    def value(self) -> T:
        """The decoded body.

        Raises:
            UsageError: nobody decoded it; `message.body` has the bytes.
        """
        if self._value is _MISSING:
            raise UsageError("the body of this delivery was not decoded: read delivery.message.body")
        return self._value

    @value.setter
    def value(self, value: T) -> None:
        self._value = value

    @property
    def settled(self) -> bool:
        """Whether `ack`, `retry` or `reject` was taken, from the handler or on its behalf."""
        return self._holder is not None and self._holder.settled

    async def ack(self) -> None:
        """Tell the broker that the message is done. Returns when the broker knows.

        Like `retry` and `reject`: only the first settlement of a delivery has an effect.

        Raises:
            BackendUnavailable: the broker cannot be told; the delivery is still unsettled.
            UsageError: no dispatcher handed this delivery out.
        """
        await self._held().settle(Ack())

    async def retry(self, delay: float = 0.0) -> None:
        """Have the message delivered again, `delay` seconds after the handler ended.

        The policy's `max_deliveries` holds here too: what was delivered so often already goes to the dead letters.

        Raises:
            UsageError: no dispatcher handed this delivery out.
        """
        await self._held().settle(Retry(delay))

    async def reject(self, reason: str = "") -> None:
        """Send the message to the dead letters. Returns when the broker has it there.

        Args:
            reason: why; it is logged and travels with the dead letter.

        Raises:
            BackendUnavailable, BackendRefused, TooLarge: the dead letter cannot be published, or the broker cannot be
                told; the delivery is still unsettled.
            UsageError: no dispatcher handed this delivery out.
        """
        await self._held().settle(Reject(reason))

    async def extend(self) -> None:
        """Hold the message longer, for brokers that lend it for a time.

        Seldom needed: it is done all by itself while the handler runs.

        Raises:
            BackendUnavailable: the broker cannot be told.
            UsageError: no dispatcher handed this delivery out.
        """
        await self._held().extend()

    def _held(self) -> Holder:
        if self._holder is None:
            raise UsageError("this delivery cannot settle itself: no dispatcher handed it out")
        return self._holder

    def __repr__(self) -> str:
        return f"Delivery(topic={self.topic!r}, key={self.key!r}, count={self.count}, size={self.message.size})"


def bind(delivery: Delivery[Any], holder: Holder) -> None:
    """Let the delivery's own methods work through `holder`."""
    delivery._holder = holder
