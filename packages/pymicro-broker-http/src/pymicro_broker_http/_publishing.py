"""One message on its way to those who are subscribed: who gets it, and what the publisher is told."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pymicro.broker import envelope
from pymicro.errors import BackendUnavailable, ConnectionFailed, TooLarge
from pymicro.message import Message
from pymicro.record import Node
from pymicro_broker_http._consumer import HttpConsumer
from pymicro_broker_http._faults import Faults, Full, Gone, Silent

if TYPE_CHECKING:
    from pymicro_broker_http._client import Client

#: Who takes messages: a subscription of this process, or one of another.
Member = HttpConsumer | Node


class Publishing:
    """Brings one message to all subscribers at the same time.

    Args:
        topic: where it is published.
        message: with all of its headers.
        key: its ordering key; None for none.
        client: posts to other processes.
        faults: who is left out.
        timeout: seconds for the whole of it.
    """

    def __init__(
        self, topic: str, message: Message, key: str | None, client: Client, faults: Faults, timeout: float
    ) -> None:
        self._topic = topic
        self._message = message
        self._key = key
        self._client = client
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + timeout
        self._body: bytes | None = None

    @property
    def left(self) -> float:
        """Seconds until it must be done."""
        return max(0.0, self._deadline - self._loop.time())

    async def deliver(self, each: Sequence[Member], queues: Sequence[tuple[str, Sequence[Member]]]) -> None:
        """Give the message to each of `each` and to one of each queue.

        Raises:
            TooLarge, BackendUnavailable: a subscriber that is there did not take it, or nobody of a queue did.
        """
        steps = [self._to_each(member) for member in each] + [self._to_one_of(*queue) for queue in queues]
        errors = [error for error in await asyncio.gather(*steps) if error is not None]
        if errors:
            raise next((error for error in errors if isinstance(error, TooLarge)), errors[0])

    async def _to_each(self, member: Member) -> Exception | None:
        if self._left_out(member):
            return None
        error = await self._give(member, self.left)
        # A subscription without a queue lives and dies with its process: who cannot be reached has none.
        slow = isinstance(error, Silent) and not self._left_out(member)
        return error if slow or isinstance(error, TooLarge | Full) else None

    async def _to_one_of(self, queue: str, members: Sequence[Member]) -> Exception | None:
        waiting = self._in_order(members)
        # Without a key, somebody who is idle comes first, and then whoever has room.
        rounds = (True, False) if self._key is None and len(waiting) > 1 else (False,)
        errors: list[Exception] = []
        for if_idle in rounds:
            errors = [error for error in errors if not isinstance(error, Full)]
            busy: list[Member] = []
            for number, member in enumerate(waiting):
                error = await self._give(member, self.left / (len(waiting) - number), if_idle=if_idle)
                if error is None or isinstance(error, Silent):
                    return error  # one that said nothing may be at work on it: another one would do it twice
                errors.append(error)
                if isinstance(error, Full):
                    busy.append(member)
            waiting = busy
        return _nobody(queue, errors)

    def _in_order(self, members: Sequence[Member]) -> list[Member]:
        """Whom to try first: anybody, or for a key always the same one; those that are left out come last."""
        if self._key is None:
            ordered = random.sample(members, len(members))
        else:
            key = self._key.encode("utf-8", "surrogatepass")
            ordered = sorted(members, key=lambda member: hashlib.blake2b(key + member.id.encode()).digest())
        return sorted(ordered, key=self._left_out)

    def _left_out(self, member: Member) -> bool:
        return isinstance(member, Node) and self._faults.left_out(member)

    async def _give(self, member: Member, timeout: float, *, if_idle: bool = False) -> Exception | None:
        """Give it to one; what went wrong, or None. `timeout` bounds the wait for room, or for a connection."""
        if isinstance(member, HttpConsumer):
            return await self._hand_over(member, timeout, if_idle)
        if self._body is None:
            self._body = envelope.write(self._topic, self._message, self._key)
        return await self._post(member, self._body, timeout, if_idle)

    async def _hand_over(self, member: HttpConsumer, timeout: float, if_idle: bool) -> Exception | None:
        match await member.offer(self._message, self._key, timeout, if_idle=if_idle):
            case "full":
                return Full(f"a subscription of this process has no room for {timeout:.3g} s")
            case "gone":
                return Gone("a subscription of this process ended")
        return None

    async def _post(self, node: Node, body: bytes, timeout: float, if_idle: bool) -> Exception | None:
        began = self._loop.time()
        try:
            await self._client.post(node, body, self.left, connect_timeout=timeout, if_idle=if_idle)
        except (Full, Gone, TooLarge) as error:
            self._faults.works(node)
            return error
        except ConnectionFailed as error:
            self._faults.failed(node, error, self._loop.time() - began)
            return error
        self._faults.works(node)
        return None


def _nobody(queue: str, errors: Sequence[Exception]) -> Exception | None:
    """What the publisher is told when nobody of a queue took the message."""
    if all(isinstance(error, Gone) for error in errors):
        return None  # so nobody was subscribed
    if all(isinstance(error, TooLarge) for error in errors):
        return errors[0]
    causes = "; ".join(str(error) for error in errors)
    return BackendUnavailable(f"no subscriber of queue {queue!r} took the message: {causes}")
