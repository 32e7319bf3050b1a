"""When a message comes again, and when it is given up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec

from pymicro.broker._types import Delivery, Reject, Retry
from pymicro.errors import BadRequest, InvalidOption
from pymicro.message import Message

_REASON_LENGTH = 500
_EXPONENT = 64  # beyond it every sensible back-off is at its maximum; floats overflow far above


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a message that its handler failed on. The same on every broker.

    It comes again after `delay`, then `delay * factor`, and so on up to `max_delay`. When it was delivered
    `max_deliveries` times it goes to the dead letters. An error in `permanent` sends it there at once: by default
    `BadRequest`, which says that this message can never be handled, such as a body that does not fit its type. Any
    other error may pass, even a 404 of another service: it is retried. A batch that fails is retried whatever the
    error, for it condemns no single message. A handler that was cancelled is retried.

    A message that is retried comes after those of its key that were handed out already. `keep_order` tries it again
    in place instead, and later ones of its key wait; the price is that attempts made so are not counted by the broker
    and are forgotten when the process ends. Brokers without redelivery are served in that way in any case.

    Attributes:
        max_deliveries: how often a message is delivered at most, at least 1.
        delay: seconds before the second delivery.
        factor: by how much each delay is longer than the one before.
        max_delay: seconds that a delay has at most.
        jitter: the share of each delay that is random, 0 to 1, so that many failures do not come back at once.
        permanent: errors that no repetition cures.
        dead_letters: the topic of the dead letters, where `{topic}` stands for the message's; None for none: then the
            broker is told that the message was rejected.
        keep_order: whether a message with a key is tried again in place.

    Raises:
        InvalidOption: a value is out of its range.
    """

    max_deliveries: int = 5
    delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 60.0
    jitter: float = 0.1
    permanent: tuple[type[Exception], ...] = (BadRequest,)
    dead_letters: str | None = "{topic}.dead"
    keep_order: bool = False

    def __post_init__(self) -> None:
        sound = self.max_deliveries >= 1 and self.delay >= 0 and self.factor >= 1 and self.max_delay >= 0
        if not (sound and 0 <= self.jitter <= 1):
            raise InvalidOption(f"a value of {self!r} is out of its range")

    def delay_after(self, count: int, rand: Callable[[], float] = random.random) -> float:
        """Seconds to wait after delivery number `count`; `rand` gives numbers from 0 to 1."""
        delay = min(self.delay * self.factor ** min(count - 1, _EXPONENT), self.max_delay)
        return delay * (1 - self.jitter * rand())

    def decide(self, error: BaseException, count: int, *, alone: bool = True) -> Retry | Reject:
        """What becomes of a message whose delivery number `count` failed; `alone` says that it was no batch."""
        if isinstance(error, asyncio.CancelledError):
            return Retry(self.delay_after(count))
        if (alone and isinstance(error, self.permanent)) or count >= self.max_deliveries:
            return Reject(f"{type(error).__name__}: {error}")
        return Retry(self.delay_after(count))

    def dead_topic(self, topic: str) -> str | None:
        """The topic of the dead letters of `topic`; None for none."""
        return self.dead_letters.replace("{topic}", topic) if self.dead_letters is not None else None


def dead_letter(delivery: Delivery[object], reason: str) -> Message:
    """The message to publish for a delivery that is given up: as it was, and why, whence and after how many times."""
    # Headers travel in places where a line ends one.
    line = "".join(char if char.isprintable() else " " for char in reason[:_REASON_LENGTH])
    fields = (
        ("Micro-Dead-Reason", line),
        ("Micro-Dead-Topic", delivery.topic),
        ("Micro-Dead-Count", str(delivery.count)),
    )
    return Message(delivery.message.headers.extend(fields), delivery.message.body)
