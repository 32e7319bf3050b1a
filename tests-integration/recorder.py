"""A TCP proxy that keeps what goes through it, for tests of what is on the wire."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from processes import PATIENCE


@dataclass
class Wire:
    """One HTTP message as its bytes say it.

    Attributes:
        start: the first line.
        headers: by the name as written; the first of several of a name.
        body: without the marks of chunks.
        chunked: whether it came in chunks.
    """

    start: str
    headers: dict[str, str]
    body: bytes
    chunked: bool


@dataclass
class Recorded:
    """What went over one connection, and how it ended.

    Attributes:
        sent: by the side that dialled.
        received: by it.
        silent_for: seconds from the connection to its first byte; None while there is none.
        server_closed: set when the server ended its side.
    """

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    silent_for: float | None = None
    server_closed: asyncio.Event = field(default_factory=asyncio.Event)
    to_server: asyncio.StreamWriter | None = None

    @property
    def requests(self) -> list[Wire]:
        """The messages of the side that dialled, as far as they are whole."""
        return messages(bytes(self.sent))

    @property
    def responses(self) -> list[Wire]:
        """Those of the other side."""
        return messages(bytes(self.received))


class Recorder:
    """Stands before a server; connect to `address` instead.

    Args:
        target: the server, `host:port`.
        hold: whether connections to the server stay when the client ends its side: so it is seen who ended them.

    Attributes:
        connections: in the order in which they came.
        address: where it listens.
    """

    def __init__(self, target: str, *, hold: bool = False) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._hold = hold
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()
        self.connections: list[Recorded] = []
        self.address = ""

    async def __aenter__(self) -> Self:
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self._stack.callback(server.close)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def responses(self, count: int, connection: int = 0) -> list[Wire]:
        """The responses of a connection, once there are so many."""
        async with asyncio.timeout(PATIENCE), self._news:
            while len(self.connections) <= connection or len(self.connections[connection].responses) < count:
                await self._news.wait()
        return self.connections[connection].responses

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recorded = Recorded()
        self.connections.append(recorded)
        began = asyncio.get_running_loop().time()
        from_server, to_server = await asyncio.open_connection(*self._target)
        recorded.to_server = to_server

        async def out() -> None:
            while chunk := await _read(reader):
                if recorded.silent_for is None:
                    recorded.silent_for = asyncio.get_running_loop().time() - began
                recorded.sent += chunk
                await _write(to_server, chunk)
            if not self._hold:
                to_server.close()

        async def back() -> None:
            while chunk := await _read(from_server):
                recorded.received += chunk
                await _write(writer, chunk)
                async with self._news:
                    self._news.notify_all()
            recorded.server_closed.set()
            writer.close()

        try:
            await asyncio.gather(out(), back())
        finally:
            writer.close()
            to_server.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    with suppress(ConnectionError):
        return await reader.read(256 * 1024)
    return b""


async def _write(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    with suppress(ConnectionError):  # whoever is gone misses nothing
        writer.write(chunk)
        await writer.drain()


def messages(data: bytes) -> list[Wire]:
    """The whole HTTP/1.1 messages in `data`."""
    found: list[Wire] = []
    while True:
        head, complete, rest = data.partition(b"\r\n\r\n")
        if not complete:
            return found
        start, *lines = head.decode().split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name, value.strip())
        chunked = headers.get("Transfer-Encoding") == "chunked"
        body = _chunks(rest) if chunked else _counted(rest, int(headers["Content-Length"]))
        if body is None:
            return found
        found.append(Wire(start, headers, body[0], chunked))
        data = body[1]


def _counted(rest: bytes, length: int) -> tuple[bytes, bytes] | None:
    return (rest[:length], rest[length:]) if len(rest) >= length else None


def _chunks(rest: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        size, complete, rest = rest.partition(b"\r\n")
        length = int(size, 16) if complete else 0
        if not complete or len(rest) < length + 2:
            return None
        body, rest = body + rest[:length], rest[length + 2 :]
        if not length:
            return body, rest
