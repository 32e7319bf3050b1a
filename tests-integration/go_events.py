"""Subscribers in Go and in Python, and what they got."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from go_peers import GoProgram
from processes import PATIENCE
from pymicro import Service


@dataclass
class Event:
    text: str
    number: int
    data: bytes


EVENT = Event("Grüße & <more>\n\N{SNOWMAN}", 7, bytes(range(256)))
ON_THE_WIRE = {"text": EVENT.text, "number": EVENT.number, "data": base64.b64encode(EVENT.data).decode()}


@pytest.fixture
def topic() -> str:
    """A topic that nobody else has."""
    return f"topic-{uuid.uuid4().hex[:8]}"


class Received:
    """What a Python subscriber got: values and headers, in the order of their arrival."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, dict[str, str]]] = []
        self._news = asyncio.Condition()

    async def add(self, delivery: Any) -> None:
        """One more."""
        async with self._news:
            self.events.append((delivery.value, dict(delivery.message.headers)))
            self._news.notify_all()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds after an event."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(true)

    async def first(self) -> tuple[Any, dict[str, str]]:
        """The first event."""
        await self.until(lambda: bool(self.events))
        return self.events[0]


@pytest.fixture
async def subscribe(service: Service, topic: str) -> AsyncIterator[Callable[..., Any]]:
    """Subscribes in Python, to events of a type and perhaps in a queue; all end with the test."""
    running: list[asyncio.Task[None]] = []

    async def subscribe(type: type[Any], queue: str = "") -> Received:
        received, attached = Received(), asyncio.Event()

        async def take() -> None:
            async with service.subscription(topic, type, queue=queue) as deliveries:
                attached.set()
                async for delivery in deliveries:
                    await received.add(delivery)

        running.append(asyncio.create_task(take()))
        await attached.wait()
        return received

    yield subscribe
    for task in running:
        task.cancel()
    await asyncio.wait(running) if running else None


class Member(Protocol):
    """A subscriber, and how often it got each event's number."""

    @property
    def numbers(self) -> Counter[int]: ...


class Go:
    """A member in Go."""

    def __init__(self, program: GoProgram) -> None:
        self._program = program

    @property
    def numbers(self) -> Counter[int]:
        said = (json.loads(line) for line in self._program.printed)
        return Counter(line["value"]["number"] for line in said if line["event"] == "received")


class Python:
    """A member in Python."""

    def __init__(self, received: Received) -> None:
        self._received = received

    @property
    def numbers(self) -> Counter[int]:
        return Counter(value.number for value, _ in self._received.events)


def together(members: Sequence[Member]) -> Counter[int]:
    """What all of them got."""
    return sum((member.numbers for member in members), Counter())


async def until_got(members: Sequence[Member], events: int) -> None:
    """Wait until all of them together got so many."""
    async with asyncio.timeout(PATIENCE):
        while together(members).total() < events:  # noqa: ASYNC110 - members in two languages, with events of two kinds
            await asyncio.sleep(0.01)
