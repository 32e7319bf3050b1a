"""Transports over TCP that do the wrong thing when the network fails; a case that is named must find it.

The sound one is as small as can be: each message is a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket as _socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import pytest

from pymicro.errors import Closed, DialFailed, Disconnected, ProtocolViolation
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Build
from pymicro.record import Node
from pymicro.transport import Accept, Listener, Socket, Transport
from pymicro_testing import TransportConformance

CaseFails = Callable[[object, str], Awaitable[None]]


class TcpSocket(Socket):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._arrived: asyncio.Queue[Message | Exception] = asyncio.Queue(16)
        self._callback: Callable[[], None] | None = None
        self._fault: Exception | None = None
        self._reading = asyncio.create_task(self._read(reader))

    @property
    def on_disconnect(self) -> Callable[[], None] | None:
        return self._callback

    @on_disconnect.setter
    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback

    @property
    def connected(self) -> bool:
        return self._fault is None

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readuntil(b"\n"):
                await self._arrived.put(self.parse(line))
        except (asyncio.IncompleteReadError, OSError) as error:
            await self._lost(Disconnected(str(error)), getattr(error, "partial", b""))
        except (ValueError, asyncio.LimitOverrunError) as error:
            await self._lost(ProtocolViolation(str(error)), b"")

    def parse(self, line: bytes) -> Message:
        headers, body = json.loads(line)
        return Message(Headers(headers), body.encode("latin-1"))

    async def _lost(self, fault: Exception, partial: bytes) -> None:
        self._fault = self._fault or fault
        if self._callback is not None:
            self._callback()
        self._writer.transport.abort()
        await self._arrived.put(fault)

    async def send(self, message: Message) -> None:
        if self._fault is not None:
            raise self._fault
        self._writer.write(json.dumps([dict(message.headers), message.body.decode("latin-1")]).encode() + b"\n")
        try:
            await self._writer.drain()
        except OSError as error:
            raise Disconnected(str(error)) from error
        if self._fault is not None:
            raise self._fault

    async def recv(self) -> Message:
        if isinstance(self._fault, Closed):
            raise self._fault
        arrived = await self._arrived.get()
        if isinstance(arrived, Message):
            return arrived
        self._arrived.put_nowait(arrived)
        raise arrived

    async def aclose(self) -> None:
        self._fault = Closed("the socket was closed")
        self._reading.cancel()
        self._writer.close()
        closing = asyncio.ensure_future(self._writer.wait_closed())
        await asyncio.wait({closing}, timeout=0.1)
        self._writer.transport.abort()
        await asyncio.wait({closing, self._reading})
        with suppress(OSError):
            closing.result()


class TcpListener(Listener):
    def __init__(self, accept: Accept, kind: type[TcpSocket]) -> None:
        self._accept = accept
        self._kind = kind
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self.connected, "127.0.0.1", 0, limit=2**24)
        self.addresses: Sequence[str] = [f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"]

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(self._kind(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, socket: TcpSocket) -> None:
        try:
            await self._accept(socket)
        finally:
            await socket.aclose()

    async def stop_accepting(self) -> None:
        self._server.close()

    async def aclose(self) -> None:
        await self.stop_accepting()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


class TcpTransport(Transport):
    socket: ClassVar[type[TcpSocket]] = TcpSocket
    listener: ClassVar[type[TcpListener]] = TcpListener

    async def dial(self, node: Node, *, timeout: float) -> Socket:
        host, _, port = node.address.rpartition(":")
        try:
            return self.socket(*await asyncio.open_connection(host, int(port), limit=2**24))
        except OSError as error:
            raise DialFailed(str(error), node.address) from error

    async def listen(self, address: str, accept: Accept, *, sock: _socket.socket | None = None) -> Listener:
        listener = self.listener(accept, self.socket)
        await listener.open()
        return listener


#: What broken ones forget to close.
UNCLOSED: list[asyncio.StreamWriter] = []


class DeliversHalves(TcpSocket):
    async def _lost(self, fault: Exception, partial: bytes) -> None:
        if partial:
            await self._arrived.put(Message(body=partial))
        await super()._lost(fault, partial)


class TellsNobody(TcpSocket):
    async def _lost(self, fault: Exception, partial: bytes) -> None:
        self._callback = None
        await super()._lost(fault, partial)


class WaitsForGood(TcpSocket):
    async def _lost(self, fault: Exception, partial: bytes) -> None:
        await asyncio.Event().wait()


class ReadsPiecesAsMessages(TcpSocket):
    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            await self._arrived.put(self.parse(data))
        await self._lost(Disconnected("end"), b"")


class TakesGarbage(TcpSocket):
    def parse(self, line: bytes) -> Message:
        try:
            return super().parse(line)
        except ValueError:
            return Message(body=line)

    async def _lost(self, fault: Exception, partial: bytes) -> None:
        await super()._lost(fault, partial)
        if partial:
            self._arrived.get_nowait()
            self._arrived.put_nowait(Message(body=partial))


class ClosesWithTheLastByte(TcpSocket):
    async def aclose(self) -> None:
        UNCLOSED.append(self._writer)
        self._fault = Closed("the socket was closed")
        self._reading.cancel()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class OneAtATime(TcpListener):
    """Turns to the next client when the first is gone."""

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._tasks:
            UNCLOSED.append(writer)
        else:
            super().connected(reader, writer)


class OneAtATimeTransport(TcpTransport):
    listener = OneAtATime


class Suite(TransportConformance):
    """The cases on a broken transport."""

    tcp = True
    patience = 0.5
    quiet = 0.02

    def __init__(self, broken: type[Any]) -> None:
        self.broken = broken

    def make(self, build: Build) -> Transport:
        if issubclass(self.broken, TcpTransport):
            return self.broken()
        transport = TcpTransport()
        transport.socket = self.broken  # type: ignore[misc]  # this instance's alone
        return transport


class Patient(Suite):
    """For sound ones, which may be slow on a busy machine."""

    patience = 5.0


BROKEN: list[tuple[type[Any], str]] = [
    (DeliversHalves, "test_a_peer_killed_in_the_middle_of_a_message_is_disconnected"),
    (TellsNobody, "test_a_peer_killed_in_the_middle_of_a_message_is_disconnected"),
    (WaitsForGood, "test_a_network_that_ends_is_told_to_both_sides"),
    (ReadsPiecesAsMessages, "test_bytes_that_trickle_make_whole_messages"),
    (TakesGarbage, "test_garbage_from_a_server_is_an_error"),
    (ClosesWithTheLastByte, "test_closing_while_the_network_stalls_is_bounded"),
    (OneAtATimeTransport, "test_a_silent_client_keeps_nobody_waiting"),
]


@pytest.mark.parametrize(("broken", "case"), BROKEN)
@pytest.mark.usefixtures("rubbish_removed")
async def test_the_named_case_finds_it(broken: type[Any], case: str, case_fails: CaseFails) -> None:
    await case_fails(Suite(broken), case)
    for writer in UNCLOSED:
        writer.transport.abort()
    UNCLOSED.clear()


@pytest.mark.parametrize("case", sorted({case for _, case in BROKEN}))
async def test_the_same_case_passes_a_sound_one(case: str) -> None:
    await getattr(Patient(TcpSocket), case)()
