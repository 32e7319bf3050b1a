"""What supervisor and worker tell each other: JSON, one message a line, over a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from pymicro.record import ServiceRecord
from pymicro.server import Health, Statistics

T = TypeVar("T")

#: Longest line in bytes: a record with every endpoint of a service must fit.
LINE_LIMIT: Final = 4 * 1024 * 1024


class Accept(msgspec.Struct, frozen=True, tag=True):
    """Accept on the sockets of these slots, and of no others."""

    slots: tuple[int, ...]


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Finish and end. `replaced`: other workers go on serving at the same address."""

    replaced: bool


class Inquiry(msgspec.Struct, frozen=True, tag=True):
    """Send a `Report`."""


class Answer(msgspec.Struct, frozen=True, tag=True):
    """All workers together, after a `Question`."""

    health: Health
    stats: Statistics


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker is fit for calls, and this is what it would register."""

    record: ServiceRecord


class Unready(msgspec.Struct, frozen=True, tag=True):
    """A health check fails, or the worker stops."""


class Started(msgspec.Struct, frozen=True, tag=True):
    """Everything is open and the checks have run once."""


class Leaving(msgspec.Struct, frozen=True, tag=True):
    """Somebody told this one worker to end."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """The program wants the whole service to stop."""


class Question(msgspec.Struct, frozen=True, tag=True):
    """How are all of you? The answer is an `Answer`."""


class Report(msgspec.Struct, frozen=True, tag=True):
    """How this one worker is, after an `Inquiry`."""

    health: Health
    stats: Statistics


#: From the supervisor to a worker.
Order = Accept | Drain | Inquiry | Answer

#: From a worker to the supervisor.
Notice = Ready | Unready | Started | Leaving | Stop | Question | Report


class Channel(Generic[T]):
    """One end. Iterating yields messages of type `T` until the other end is closed or sends what is none.

    Sending never waits. It needs no bound of its own: either side has at most one question under way, and tells the
    rest only when something changed.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, type: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decode = msgspec.json.Decoder(type).decode

    @classmethod
    async def open(cls, sock: socket.socket, type: Any) -> Self:
        """Take over one of a pair of sockets."""
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LINE_LIMIT)
        return cls(reader, writer, type)

    def send(self, message: Order | Notice) -> None:
        """Send; to an end that is gone, nothing."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def __aiter__(self) -> AsyncIterator[T]:
        with suppress(ConnectionError, ValueError):  # broken, or a line that is too long or no message
            while line := await self._reader.readline():
                yield self._decode(line)

    async def aclose(self) -> None:
        """Close this end."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
