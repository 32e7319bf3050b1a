"""Peers on a connection that speak recorded bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, Self

from recorded import HttpMessage, http_message

#: Seconds after which something that should have come is missing.
PATIENCE = 10.0


class Line:
    """One side of a connection, which reads whole messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._data = b""

    @classmethod
    @asynccontextmanager
    async def to(cls, address: str) -> AsyncIterator[Self]:
        """A connection to where a service listens."""
        host, _, port = address.rpartition(":")
        line = cls(*await asyncio.open_connection(host, int(port)))
        try:
            yield line
        finally:
            await line.close()

    async def say(self, data: bytes) -> None:
        """Send bytes; a peer that has closed does not read them."""
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def hear(self) -> HttpMessage:
        """The next message.

        Raises:
            EOFError: the peer closed the connection.
        """
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    message, rest = http_message(self._data)
                except EOFError:
                    if not await self._more():
                        raise
                else:
                    self._data = rest
                    return message

    async def _more(self) -> bool:
        more = b""
        with suppress(ConnectionError):
            more = await self._reader.read(65536)
        self._data += more
        return bool(more)

    async def rest(self) -> list[HttpMessage]:
        """All messages until the peer closes the connection."""
        messages = []
        with suppress(EOFError):
            while True:
                messages.append(await self.hear())
        assert not self._data
        return messages

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class Turn(NamedTuple):
    """What a played server waits for, and what it says then.

    Attributes:
        hears: how many messages of the client.
        says: bytes.
    """

    hears: int
    says: bytes


class Played:
    """A server that plays a recording to the one connection that it gets.

    Attributes:
        address: where it listens.
        heard: the client's messages.
        all_heard: set when every message was heard, and the last answer sent.
        client_left: set when the client has closed the connection.
        connections: how many there were.
    """

    def __init__(self, turns: Sequence[Turn], *, hangs_up: bool = False) -> None:
        self.address = ""
        self.heard: list[HttpMessage] = []
        self.all_heard = asyncio.Event()
        self.client_left = asyncio.Event()
        self.connections = 0
        self._turns = turns
        self._hangs_up = hangs_up

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen until the context ends."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            self.address = f"{host}:{port}"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        line = Line(reader, writer)
        for turn in self._turns:
            for _ in range(turn.hears):
                self.heard.append(await line.hear())
            await line.say(turn.says)
        self.all_heard.set()
        if not self._hangs_up:
            self.heard += await line.rest()
            self.client_left.set()
        await line.close()
