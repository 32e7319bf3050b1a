"""Frames on a connection, as bare as an event loop allows: no names, no headers, no deadlines, no errors.

A frame is the length of what follows (4 bytes), a number that the answer repeats (4 bytes), a byte for what is asked,
and the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from struct import Struct
from typing import cast

from peers._messages import HelloRequest, HelloResponse, decode_request, decode_response, encode

_HEAD = Struct(">IIB")
_HELLO, _ECHO = 0, 1


class Frames(asyncio.Protocol):
    """Cuts what arrives into frames."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._missing = 0  # bytes until the frame that begins in the parts is complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's do not derive from it

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._parts)
            self._parts = []
        at, end = 0, len(data)
        out: list[bytes] = []
        while end - at >= 9:
            size, number, what = _HEAD.unpack_from(data, at)
            if end - at < 4 + size:
                break
            self.frame(number, what, data[at + 9 : at + 4 + size], out)
            at += 4 + size
        if at < end:
            self._parts.append(data[at:])
            self._missing = 4 + size - (end - at) if end - at >= 9 else 1
        if out:
            self.transport.writelines(out)

    def frame(self, number: int, what: int, body: bytes, out: list[bytes]) -> None:
        """One frame; what is put in `out` is written when all that arrived has been looked at."""


class _Server(Frames):
    def frame(self, number: int, what: int, body: bytes, out: list[bytes]) -> None:
        if what == _HELLO:
            body = encode(HelloResponse(greeting=f"Hello {decode_request(body).name}"))
        out.append(_HEAD.pack(len(body) + 5, number, what))
        out.append(body)


class _Client(Frames):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._unwritten: list[bytes] = []

    def frame(self, number: int, what: int, body: bytes, out: list[bytes]) -> None:
        self.waiting.pop(number).set_result(body)

    def connection_lost(self, error: Exception | None) -> None:
        for future in self.waiting.values():
            future.set_exception(error or ConnectionResetError())

    def ask(self, what: int, body: bytes) -> asyncio.Future[bytes]:
        """The answer's body. What is asked within one turn of the loop is written together, at its end."""
        loop = asyncio.get_running_loop()
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        future = self.waiting[number] = loop.create_future()
        if not self._unwritten:
            loop.call_soon(self._write)
        self._unwritten.append(_HEAD.pack(len(body) + 5, number, what))
        self._unwritten.append(body)
        if len(self._unwritten) >= 64:
            self._write()
        return future

    def ask_now(self, what: int, body: bytes) -> asyncio.Future[bytes]:
        """The answer's body; written at once."""
        future = self.waiting[0] = asyncio.get_running_loop().create_future()
        self.transport.writelines((_HEAD.pack(len(body) + 5, 0, what), body))
        return future

    def _write(self) -> None:
        if self._unwritten:
            self.transport.writelines(self._unwritten)
            self._unwritten = []


async def serve(ready: Callable[[str], None]) -> None:
    """See `Peer`."""
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
    ready(str(server.sockets[0].getsockname()[1]))
    async with server:
        await server.serve_forever()


class Multiplexed:
    """See `peers.Client`: all calls on one connection."""

    def __init__(self, connection: _Client) -> None:
        self._ask = connection.ask

    async def hello(self, name: str) -> str:
        """See `peers.Client`."""
        return decode_response(await self._ask(_HELLO, encode(HelloRequest(name)))).greeting

    async def echo(self, data: bytes) -> bytes:
        """See `peers.Client`."""
        return await self._ask(_ECHO, data)

    async def stream(self, names: AsyncIterator[str]) -> AsyncIterator[str]:
        """See `peers.Client`."""
        answers: asyncio.Queue[asyncio.Future[bytes] | None] = asyncio.Queue()

        async def send() -> None:
            async for name in names:
                answers.put_nowait(self._ask(_HELLO, encode(HelloRequest(name))))
            answers.put_nowait(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            while answer := await answers.get():
                yield decode_response(await answer).greeting


class Pooled:
    """See `peers.Client`: each call in flight has a connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Client] = []

    async def _ask(self, what: int, body: bytes) -> bytes:
        connection = self._idle.pop() if self._idle else await connect(self._port)
        answer = await connection.ask_now(what, body)
        self._idle.append(connection)
        return answer

    async def hello(self, name: str) -> str:
        """See `peers.Client`."""
        return decode_response(await self._ask(_HELLO, encode(HelloRequest(name)))).greeting

    async def echo(self, data: bytes) -> bytes:
        """See `peers.Client`."""
        return await self._ask(_ECHO, data)

    def close(self) -> None:
        """Close the connections, all of which are idle."""
        for connection in self._idle:
            connection.transport.close()


async def connect(port: int) -> _Client:
    """A connection to the server on loopback."""
    _, connection = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    return connection


@asynccontextmanager
async def pooled(address: str) -> AsyncIterator[Pooled]:
    """See `Peer`."""
    client = Pooled(int(address))
    try:
        yield client
    finally:
        client.close()


@asynccontextmanager
async def multiplexed(address: str) -> AsyncIterator[Multiplexed]:
    """See `Peer`."""
    connection = await connect(int(address))
    try:
        yield Multiplexed(connection)
    finally:
        connection.transport.close()
