"""Asking everybody: whoever runs the service answers, and nobody knows how many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from pymicro.clock import Clock
from pymicro.errors import BackendRefused
from pymicro.record import ServiceRecord
from pymicro.registry.wire import read_record
from pymicro_nats.connection import Session, unanswered

#: Answers that one question may have.
MOST_ANSWERS: Final = 100_000

#: How much longer than a round trip to the server an answer may take.
_ROUND_TRIPS: Final = 5


async def ask(
    session: Session, clock: Clock, topic: str, questions: Iterable[bytes], seconds: float
) -> list[ServiceRecord]:
    """What is answered within `seconds`, and for longer where the server itself takes long.

    Raises:
        BackendUnavailable, BackendRefused: the server cannot be asked, or does not let us ask.
    """
    answers: list[ServiceRecord] = []
    nobody = asyncio.Event()
    with session.gathering(_taker(answers, nobody)) as inbox:
        started = clock.monotonic()
        for question in questions:
            await session.send(topic, question, reply=inbox)
        await session.confirm()
        if nobody.is_set():
            return []
        trip = clock.monotonic() - started
        await clock.sleep(max(seconds, _ROUND_TRIPS * trip))
        for _ in range(2):  # what arrived while this process or the server had no time is read
            await session.confirm()
    if len(answers) > MOST_ANSWERS:
        raise BackendRefused(f"more than {MOST_ANSWERS} answers to one question", session.address)
    return answers


def _taker(answers: list[ServiceRecord], nobody: asyncio.Event) -> Callable[[Any], None]:
    def take(message: Any) -> None:
        if unanswered(message):
            nobody.set()
        elif len(answers) <= MOST_ANSWERS:
            record = read_record(message.data)
            if record is not None:
                answers.append(record)

    return take
