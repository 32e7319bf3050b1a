"""Streams of Go servers and Go clients, as a test sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from go_peers import GoProgram

#: What makes the handler Streams.Echo end the stream, or fail.
LEAVE, FALL = -1, -2


@dataclass
class Number:
    value: int


@dataclass
class Range:
    upto: int
    pause: int


class Streams(Protocol):
    """The streams of the Go server."""

    def echo(self, numbers: AsyncIterator[Number]) -> AsyncIterator[Number]: ...

    def count(self, range: Range) -> AsyncIterator[Number]: ...

    async def total(self, numbers: AsyncIterator[Number]) -> Number: ...


class Told:
    """Requests that a test makes one by one; `end` ends them."""

    def __init__(self) -> None:
        self._values: asyncio.Queue[int | None] = asyncio.Queue()

    def tell(self, value: int) -> None:
        self._values.put_nowait(value)

    def end(self) -> None:
        self._values.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Number]:
        while (value := await self._values.get()) is not None:
            yield Number(value)


async def rounds(replies: AsyncIterator[Number], told: Told, count: int) -> None:
    """So many messages there and back, one after another."""
    for value in range(count):
        told.tell(value)
        assert await anext(replies) == Number(value)


async def opened(client: GoProgram, endpoint: str, *values: int) -> None:
    """A stream with its first requests. What opens it looks like one, and is none."""
    assert (await client.ask("open", endpoint=endpoint, body={"value": 999}))["error"] is None
    for value in values:
        assert (await client.ask("send", body={"value": value}))["error"] is None


async def received(client: GoProgram, times: int) -> tuple[list[int], object]:
    said = await client.ask("receive", times=times)
    return [reply["value"] for reply in said["replies"]], said["error"]
