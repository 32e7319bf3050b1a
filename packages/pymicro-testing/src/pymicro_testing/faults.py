"""Faults on request: what can happen to a backend, and a TCP proxy that makes it happen."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from abc import ABC, abstractmethod
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

_RESET: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # linger for 0 seconds: close with a reset


class Outage(StrEnum):
    """What a `Server` can do to those who depend on it."""

    STOP = "stop"
    """Connections end and new ones are refused."""
    PAUSE = "pause"
    """Connections stay and are accepted, and nothing is answered."""
    FORGET = "forget"
    """What clients told it is lost, as after a restart without a disk."""


class Server(ABC):
    """The backend of a component, as far as a test can take it away.

    Attributes:
        outages: what this server can do; conformance cases that need another one are skipped.
    """

    outages: frozenset[Outage] = frozenset()

    @property
    def address(self) -> str:
        """Where clients connect to, `host:port`; empty if there is no such place."""
        return ""

    @abstractmethod
    async def start(self) -> None:
        """Answer again at the same address: ends `stop` and `pause`. Idempotent."""

    async def stop(self) -> None:
        """See `Outage.STOP`. Idempotent."""
        raise NotImplementedError

    async def pause(self) -> None:
        """See `Outage.PAUSE`."""
        raise NotImplementedError

    async def forget(self) -> None:
        """See `Outage.FORGET`. Connections may end; it answers again when this returns."""
        raise NotImplementedError


class FaultProxy(Server):
    """Stands between clients and a server, and delays, throttles, garbles, cuts, stalls or refuses, as it is told.

    Connect to `address` instead of to the target. It may be told something else at any time; that holds for
    connections that exist, too. It is a `Server`, so conformance cases can use it for outages of its target.

    Args:
        target: where to forward to, `host:port`.

    Attributes:
        delay: seconds by which each chunk is held up, in both directions.
        rate: bytes a second that one direction of one connection forwards; None for no bound.
        chunk: most bytes that are forwarded in one piece.
    """

    outages = frozenset({Outage.STOP, Outage.PAUSE})

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host.strip("[]"), int(port)
        self.delay: float = 0.0
        self.rate: float | None = None
        self.chunk: int = 16 * 1024
        self._forwarding = asyncio.Event()
        self._allowance: int | None = None
        self._reset = True
        self._garbage: dict[bool, _Garbage] = {}
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._listener: asyncio.Server | None = None
        self._bound: socket.socket | None = None

    @property
    def address(self) -> str:
        """Where it listens, `127.0.0.1:port`: the same from entering the proxy to leaving it."""
        if self._bound is None:
            raise RuntimeError("the proxy has no address before 'async with'")
        host, port = self._bound.getsockname()
        return f"{host}:{port}"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def __aenter__(self) -> Self:
        self._bound = _bind(0)
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            if self._bound is not None:
                self._bound.close()

    async def start(self) -> None:
        """Forward: listen again after `stop`, go on after `pause`. Idempotent."""
        self._forwarding.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, sock=self._bound)

    async def pause(self) -> None:
        """Accept connections and forward nothing until `start`. What arrived meanwhile is forwarded then."""
        self._forwarding.clear()

    async def stop(self) -> None:
        """Reset all connections and refuse new ones until `start`. Idempotent."""
        if self._listener is not None and self._bound is not None:
            port = self._bound.getsockname()[1]
            self._listener.close()
            self._listener = None
            self._bound = _bind(port)  # keeps the port; nobody listens, so connecting is refused
        self.cut()
        if self._connections:
            await asyncio.wait(self._connections)

    def cut(self, *, after: int | None = None, reset: bool = True) -> None:
        """End all connections.

        Args:
            after: how many more bytes are forwarded before it happens, those of all connections and both directions
                together; None ends them at once.
            reset: with a reset, as when a machine or a firewall goes away. False: what was forwarded arrives and then
                the end of the stream, as when a process is killed.
        """
        self._allowance = after
        self._reset = reset
        if after is None:
            for task, writers in self._connections.items():
                for writer in writers:
                    _end(writer, reset)
                task.cancel()

    def garble(self, *, after: int = 0, size: int = 1, to_client: bool = True) -> None:
        """Forward bytes that are not those that came, as a faulty peer or memory makes them; TCP would not notice.

        Args:
            after: how many more bytes of that direction, those of all connections together, are forwarded as they are.
            size: how many bytes are then inverted, each of its bits; what follows them is as it was again.
            to_client: in what the server says; False: in what clients say.
        """
        self._garbage[to_client] = _Garbage(after, size)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        task = asyncio.get_running_loop().create_task(self._serve(reader, writers), name="fault proxy connection")
        self._connections[task] = writers
        task.add_done_callback(self._connections.pop)

    async def _serve(self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]) -> None:
        try:
            await self._forwarding.wait()
            other_reader, other_writer = await asyncio.open_connection(*self._target)
            writers.append(other_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, other_writer, to_client=False))
                pumps.create_task(self._pump(other_reader, writers[0], to_client=True))
        except* OSError:
            pass  # either side went away, or the target refused: the other side is closed below
        finally:
            for writer in writers:
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool) -> None:
        while data := await reader.read(self._piece()):
            await asyncio.sleep(self.delay + (len(data) / self.rate if self.rate else 0.0))
            await self._forwarding.wait()
            if to_client in self._garbage:
                data = self._garbage[to_client].spoil(data)
            writer.write(data[: self._allowance])
            await writer.drain()
            self._count(len(data))
        with suppress(OSError):
            writer.write_eof()

    def _piece(self) -> int:
        return self.chunk if self.rate is None else max(1, min(self.chunk, int(self.rate / 20)))

    def _count(self, size: int) -> None:
        if self._allowance is not None:
            self._allowance -= size
            if self._allowance <= 0:
                self.cut(reset=self._reset)


class _Garbage:
    """Which bytes to invert: `size` of them, when `after` others went by."""

    def __init__(self, after: int, size: int) -> None:
        self._after = after
        self._size = size

    def spoil(self, data: bytes) -> bytes:
        """The same number of bytes; counts them."""
        begin = min(self._after, len(data))
        end = min(begin + self._size, len(data))
        self._after -= begin
        self._size -= end - begin
        return data[:begin] + bytes(byte ^ 0xFF for byte in data[begin:end]) + data[end:]


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _end(writer: asyncio.StreamWriter, reset: bool) -> None:
    if not reset:
        writer.close()
        return
    # On uvloop a connection that ended has no socket any more, or one that raises ValueError.
    carrier = writer.get_extra_info("socket")
    if carrier is not None:
        with suppress(OSError, ValueError):
            carrier.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
