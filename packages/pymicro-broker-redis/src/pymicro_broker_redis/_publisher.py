"""Publishing. What many publish at the same time goes in one request: each would wait for a connection otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from pymicro.errors import BackendUnavailable, ConnectionFailed
from pymicro_broker_redis import _wire
from pymicro_broker_redis._batch import Batch
from pymicro_broker_redis._group import sweep_args
from pymicro_broker_redis._link import Link
from pymicro_broker_redis._options import RedisBrokerOptions

_FIRST_WAIT: Final = 0.02  # seconds before a full topic is tried again
_LONGEST_WAIT: Final = 0.5


class _Item(NamedTuple):
    """A message on its way.

    Attributes:
        topic: where to.
        held: messages that the topic keeps without a queue.
        parts: names and values of its entry in the stream; or the one payload.
        end: when its publisher has no more time, by the loop's clock.
    """

    topic: str
    held: int
    parts: Sequence[bytes]
    end: float


class Publisher:
    """Publishes to streams and to channels. A request has as much time as the most patient of its publishers.

    Args:
        link: the way to the server.
        options: bounds and times.
        timeout: seconds that closing waits for what is on its way.
    """

    def __init__(self, link: Link, options: RedisBrokerOptions, timeout: float) -> None:
        self._link = link
        self._options = options
        self._timeout = timeout
        send = self._send_entries if options.mode == "streams" else self._send_payloads
        self._batch: Batch[_Item] = Batch(send, size=_size, withdraws=True)

    async def publish(self, topic: str, parts: Sequence[bytes], held: int, timeout: float) -> None:
        """Publish what `_Item` is made of; waits while the topic is full.

        Raises:
            BackendUnavailable: it is not known to have arrived.
            BackendRefused: the server said no.
        """
        item = _Item(topic, held, parts, asyncio.get_running_loop().time() + timeout)
        wait = _FIRST_WAIT
        try:
            async with asyncio.timeout(timeout):
                while await self._batch.add(item) is None:
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, _LONGEST_WAIT)
        except TimeoutError as error:
            why = "no answer" if wait == _FIRST_WAIT else f"no room in topic {topic!r}"
            raise BackendUnavailable(f"{why} within {timeout:g} seconds", str(self._link.addresses)) from error
        except ConnectionFailed as error:  # one for all: each publisher raises its own
            raise type(error)(error.detail, error.address) from error

    async def _send_entries(self, items: Sequence[_Item]) -> Sequence[Any]:
        """One call of the script for each topic, with its messages in their order."""
        places: dict[tuple[str, int], list[int]] = {}
        for place, item in enumerate(items):
            places.setdefault((item.topic, item.held), []).append(place)
        calls = [self._call(topic, held, [items[place] for place in of]) for (topic, held), of in places.items()]
        results: list[Any] = [None] * len(items)
        for of, answer in zip(places.values(), await self._link.run_all("publish", calls, _left(items)), strict=True):
            for place, result in zip(of, [answer] * len(of) if isinstance(answer, Exception) else answer, strict=True):
                results[place] = result
        return results

    def _call(self, topic: str, held: int, items: Sequence[_Item]) -> tuple[Sequence[str], Sequence[Any]]:
        keys = _wire.Keys(self._options.prefix, topic)
        args: list[Any] = [self._options.max_messages, held, *sweep_args(self._options, keys, topic)]
        for item in items:
            args.append(len(item.parts))
            args += item.parts
        return (keys.stream, keys.alive), args

    async def _send_payloads(self, items: Sequence[_Item]) -> Sequence[Any]:
        return await self._link.commands([("PUBLISH", item.topic, *item.parts) for item in items], _left(items))

    async def aclose(self) -> None:
        """Wait for what is on its way, bounded in time; the rest is told that the broker was closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._batch.aclose()


def _size(item: _Item) -> int:
    return sum(map(len, item.parts))


def _left(items: Sequence[_Item]) -> float:
    return max(item.end for item in items) - asyncio.get_running_loop().time()
