"""Transports that break one promise each; a case that is named must find it."""

from __future__ import annotations

import asyncio
import itertools
import socket as _socket
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest

from pymicro.message import Message
from pymicro.plugins import Build
from pymicro.record import Node
from pymicro.transport import Accept, Listener, MemoryNetwork, MemoryTransport, Socket, Transport
from pymicro_testing import LeakError, TransportConformance


class SoundSocket(Socket):
    """Passes everything on to a sound socket; broken ones override a method."""

    def __init__(self, inner: Socket) -> None:
        self.inner = inner

    @property
    def on_disconnect(self) -> Callable[[], None] | None:
        return self.inner.on_disconnect

    @on_disconnect.setter
    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        self.inner.on_disconnect = callback

    @property
    def connected(self) -> bool:
        return self.inner.connected

    async def send(self, message: Message) -> None:
        await self.inner.send(message)

    async def recv(self) -> Message:
        return await self.inner.recv()

    async def aclose(self) -> None:
        await self.inner.aclose()


class SoundTransport(Transport):
    """Passes everything on to a memory transport, with sockets of another class."""

    socket: ClassVar[type[SoundSocket]] = SoundSocket

    def __init__(self, build: Build, network: MemoryNetwork) -> None:
        self.inner = MemoryTransport(None, build, network=network)

    async def dial(self, node: Node, *, timeout: float) -> Socket:
        return self.socket(await self.inner.dial(node, timeout=timeout))

    async def listen(self, address: str, accept: Accept, *, sock: _socket.socket | None = None) -> Listener:
        async def wrapped(socket: Socket) -> None:
            await accept(self.socket(socket))

        return await self.inner.listen(address, wrapped, sock=sock)

    async def _open(self) -> None:
        await self.inner.__aenter__()

    async def _close(self) -> None:
        await self.inner.aclose()


CaseFails = Callable[[object, str], Awaitable[None]]


class Loses(SoundSocket):
    def __init__(self, inner: Socket) -> None:
        super().__init__(inner)
        self._count = itertools.count(1)

    async def send(self, message: Message) -> None:
        if next(self._count) % 100:
            await super().send(message)


class Duplicates(Loses):
    async def send(self, message: Message) -> None:
        if next(self._count) % 100 == 0:
            await self.inner.send(message)
        await self.inner.send(message)


class Reorders(Loses):
    held: Message | None = None

    async def send(self, message: Message) -> None:
        if next(self._count) % 100 == 50:
            self.held = message
            return
        await self.inner.send(message)
        if self.held is not None:
            held, self.held = self.held, None
            await self.inner.send(held)


class LosesOnCancel(SoundSocket):
    async def recv(self) -> Message:
        message = await super().recv()
        await asyncio.sleep(0)
        return message


class IgnoresCancellation(SoundSocket):
    async def recv(self) -> Message:
        receiving = asyncio.ensure_future(self.inner.recv())
        while not receiving.done():
            try:
                await asyncio.wait({receiving})
            except asyncio.CancelledError:
                continue
        return receiving.result()


class IgnoresClose(SoundSocket):
    async def aclose(self) -> None:
        pass


class TellsTwice(SoundSocket):
    @property
    def on_disconnect(self) -> Callable[[], None] | None:
        return self.inner.on_disconnect

    @on_disconnect.setter
    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        def twice() -> None:
            if callback is not None:
                callback()
                callback()

        self.inner.on_disconnect = twice


class TearsOnCancel(SoundSocket):
    async def send(self, message: Message) -> None:
        try:
            await super().send(message)
        except asyncio.CancelledError:
            self.rest = asyncio.ensure_future(self.inner.send(Message(message.headers, message.body[:10])))
            raise


class ForgetsBodies(SoundSocket):
    async def send(self, message: Message) -> None:
        await super().send(Message(message.headers, message.body.rstrip(b"\r\n")))


class MixesHeaders(SoundSocket):
    def __init__(self, inner: Socket) -> None:
        super().__init__(inner)
        self._first: Message | None = None

    async def send(self, message: Message) -> None:
        self._first = self._first or message
        await super().send(Message(self._first.headers.extend(tuple(message.headers.items())), message.body))


class NeverWaits(SoundSocket):
    """Sends from an unbounded queue of its own."""

    def __init__(self, inner: Socket) -> None:
        super().__init__(inner)
        self._waiting: asyncio.Queue[Message] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self.inner.send(await self._waiting.get())

    async def send(self, message: Message) -> None:
        self._waiting.put_nowait(message)

    async def aclose(self) -> None:
        self._task.cancel()
        await super().aclose()


class SharesState(SoundTransport):
    everybody: ClassVar[list[Socket]] = []

    async def dial(self, node: Node, *, timeout: float) -> Socket:
        socket = await super().dial(node, timeout=timeout)
        self.everybody.append(socket)
        return socket

    async def _close(self) -> None:
        for socket in self.everybody:
            await socket.aclose()
        self.everybody.clear()
        await super()._close()


class RaisesForeignErrors(SoundTransport):
    async def dial(self, node: Node, *, timeout: float) -> Socket:
        try:
            return await super().dial(node, timeout=timeout)
        except ConnectionError as error:
            raise OSError("connection refused") from error


class WorksWithoutOpening(SoundTransport):
    async def dial(self, node: Node, *, timeout: float) -> Socket:
        async with MemoryTransport(network=self.inner._network) as transport:
            return await transport.dial(node, timeout=timeout)


class LeaksTask(SoundTransport):
    async def dial(self, node: Node, *, timeout: float) -> Socket:
        self.task = asyncio.create_task(asyncio.Event().wait(), name="keeper")
        return await super().dial(node, timeout=timeout)


class LeaksSocket(SoundTransport):
    left: ClassVar[list[_socket.socket]] = []

    async def _open(self) -> None:
        self.left.append(_socket.socket())
        await super()._open()


class Suite(TransportConformance):
    """The cases on a broken transport."""

    patience = 0.3
    quiet = 0.02

    def __init__(self, broken: type[Any]) -> None:
        self.network = MemoryNetwork()
        self.broken = broken

    def make(self, build: Build) -> Transport:
        if issubclass(self.broken, SoundTransport):
            return self.broken(build, self.network)
        transport = SoundTransport(build, self.network)
        transport.socket = self.broken  # type: ignore[misc]  # this instance's alone
        return transport


class Patient(Suite):
    """For sound ones, which may be slow on a busy machine."""

    patience = 5.0


BROKEN: list[tuple[type[Any], str]] = [
    (Loses, "test_a_thousand_messages_keep_their_order"),
    (Reorders, "test_a_thousand_messages_keep_their_order"),
    (Duplicates, "test_both_sides_may_send_at_once"),
    (LosesOnCancel, "test_a_cancelled_recv_loses_no_message"),
    (IgnoresCancellation, "test_a_cancelled_recv_leaves_the_socket_sound"),
    (IgnoresClose, "test_a_closed_socket_is_of_no_use"),
    (IgnoresClose, "test_the_peer_that_closes_is_noticed"),
    (TellsTwice, "test_a_disconnect_is_told_once_though_nobody_receives"),
    (TearsOnCancel, "test_a_cancelled_send_tears_no_message"),
    (ForgetsBodies, "test_any_body_arrives_as_it_is"),
    (MixesHeaders, "test_headers_of_one_message_are_not_those_of_the_next"),
    (NeverWaits, "test_a_peer_that_stopped_reading_makes_the_sender_wait"),
    (NeverWaits, "test_a_message_over_the_limit_is_not_sent"),
    (SharesState, "test_closing_one_instance_leaves_the_other_alone"),
    (RaisesForeignErrors, "test_dialling_nobody_fails"),
    (WorksWithoutOpening, "test_after_closing_everything_is_refused"),
]


@pytest.mark.parametrize(("broken", "case"), BROKEN)
@pytest.mark.usefixtures("rubbish_removed")
async def test_the_named_case_finds_it(broken: type[Any], case: str, case_fails: CaseFails) -> None:
    await case_fails(Suite(broken), case)


@pytest.mark.parametrize("case", sorted({case for _, case in BROKEN}))
async def test_the_same_case_passes_a_sound_one(case: str) -> None:
    await getattr(Patient(SoundSocket), case)()


@pytest.mark.parametrize("broken", [LeaksTask, LeaksSocket])
@pytest.mark.usefixtures("rubbish_removed")
async def test_whatever_leaks_fails_any_case(broken: type[Any]) -> None:
    with pytest.raises(LeakError, match="test_broken_transports"):
        await Suite(broken).test_messages_pass_both_ways()
    while LeaksSocket.left:
        LeaksSocket.left.pop().close()
