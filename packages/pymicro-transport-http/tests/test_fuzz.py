"""Whatever comes, a parser answers with messages or with one of its faults, however the bytes are split.

`PYMICRO_FUZZ=1000000` says how many inputs each parser gets, and `PYMICRO_FUZZ_SEED` which. By default a thousand,
always the same.
"""

from __future__ import annotations

import asyncio
import os
import random
import struct
from typing import Any, cast

import pytest

from pymicro.errors import Closed, ConnectionFailed, Error, ProtocolViolation, TooLarge
from pymicro.message import Message
from pymicro.plugins import Limits
from pymicro_transport_http import _protocol
from pymicro_transport_http._channel import Channel
from pymicro_transport_http._channels import Channels
from pymicro_transport_http._frames import FrameParser
from pymicro_transport_http._protocol import Parser, RequestParser, ResponseParser
from pymicro_transport_http._shared import _Handshake

COUNT = int(os.environ.get("PYMICRO_FUZZ", "1000"))
SEED = int(os.environ.get("PYMICRO_FUZZ_SEED", "20260807"))

LIMITS = Limits(message=2000, headers=800, buffer=1000)
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: pymicro-channels/1\r\nPymicro-Window: 1000\r\n\r\n"
)
SEEDS = (
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nMicro-Id: 1\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"GET /x HTTP/1.0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nMicro-Error: \xc3\xa9\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nwhy",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2001\r\n\r\n" + b"x" * 2001,
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1500\r\n\r\n" + b"x" * 1500,
    b"HTTP/1.1 200 OK\r\nContent-Length: 1500\r\n\r\n" + b"x" * 1500,
    b"POST / HTTP/1.1\r\nHost: x\r\nMicro-Error: " + b"x" * 800 + b"\r\n\r\n",
    UPGRADE,
    UPGRADE[:-2] + b"Content-Length: 300\r\n\r\n" + b"x" * 300,
)
ANSWERS = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: pymicro-channels/1\r\n"
    b"Pymicro-Window: 1000\r\nPymicro-Process: 1234\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade:pymicro-channels/1\r\npymicro-window:9\r\n\r\nframes",
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nwhy",
)
TOKENS = (
    b"\r\n",
    b"\n",
    b"\0",
    b": ",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"0",
    b"9" * 30,
    b"0" * 5000,
)


def frame(kind: int, channel: int, payload: bytes = b"", value: int = 0, head: int = 0) -> bytes:
    return struct.pack(">IIIBB", len(payload), channel, value, kind, head) + payload


FIELDS = b"A\0b\0C\0\xc3\xa9\0"
FRAMES = (
    frame(0, 1, b"hello"),
    frame(0, 2, FIELDS + b"hello", len(FIELDS)),
    frame(4, 0, FIELDS, head=1),
    frame(0, 1, b"hello", head=1),
    frame(1, 3, FIELDS + b"one", len(FIELDS), 1) + frame(2, 3, b"two") + frame(3, 3, b"three"),
    frame(1, 4, b"x" * 900) + 2 * frame(2, 4, b"x" * 900) + frame(3, 4),
    frame(0, 5, b"x" * 2001),
    frame(0, 6, b"A\0" + b"x" * 800 + b"\0", 803),
    frame(0, 7, b"A\0" + b"x" * 70_000 + b"\0", 70_003),
    frame(5, 1, value=1000),
    frame(6, 3, value=1),
    frame(6, 0, head=1),
    frame(1, 5, b"never wanted") + frame(3, 5, b"nor this"),
)
SOUND = tuple(data for data in FRAMES if data[13] == 0)  # in any order, as none has a head


def mutated(chance: random.Random, seeds: tuple[bytes, ...] = SEEDS, most: int = 4) -> bytes:
    data = bytearray(b"".join(chance.choices(seeds, k=chance.randint(1, most))))
    for _ in range(chance.randint(0, 6)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 20)]
            case 2:
                data[at:at] = chance.choice(TOKENS)
            case _:
                data[at:at] = data[at : at + chance.randint(1, 200)] * chance.randint(1, 30)
        data = data or bytearray(b"x")
    return bytes(data)


def split(data: bytes, chance: random.Random) -> list[bytes]:
    pieces = []
    start = 0
    while start < len(data):
        size = chance.choice((1, 2, 10, 100, 1000, len(data)))
        pieces.append(data[start : start + size])
        start += size
    return pieces


@pytest.mark.parametrize("large", [32 * 1024, 100], ids=["small bodies", "large bodies"])
class TestHttp:
    @pytest.fixture(autouse=True)
    def bodies(self, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
        monkeypatch.setattr(_protocol, "_LARGE", large)

    def test_broken_inputs_are_messages_or_faults(self) -> None:
        chance = random.Random(SEED)
        outcomes = {"message": 0, "violation": 0, "too large": 0, "status": 0, "upgrade": 0}
        for _ in range(COUNT):
            data = mutated(chance)
            parser: Parser
            for parser in (RequestParser(LIMITS, "peer:1"), ResponseParser(LIMITS, "peer:1")):
                self.feed(parser, split(data, chance))
                self.tally(parser, outcomes)
        assert all(count > 20 for count in outcomes.values()), outcomes

    def test_how_the_bytes_are_split_does_not_matter(self) -> None:
        chance = random.Random(SEED + 1)
        for _ in range(COUNT):
            data = mutated(chance)
            for make in (RequestParser, ResponseParser):
                whole, pieces = make(LIMITS, ""), make(LIMITS, "")
                rest = [self.feed(whole, [data]), self.feed(pieces, split(data, chance))]
                for parser in (whole, pieces):
                    parser.end()
                if isinstance(whole.fault, TooLarge) or isinstance(pieces.fault, TooLarge):
                    continue  # what is over a limit may be seen before or after what follows it
                assert [(m.headers, m.body) for m in whole.inbox] == [(m.headers, m.body) for m in pieces.inbox]
                assert type(whole.fault) is type(pieces.fault)
                assert rest[0] == rest[1]

    def feed(self, parser: Parser, segments: list[bytes]) -> bytes | None:
        """What came behind an upgrade; None if there was none."""
        for number, segment in enumerate(segments):
            sound = parser.feed(segment)
            self.check_memory(parser, max(map(len, segments)))
            if parser.upgrade is not None:
                assert 0 < parser.upgrade.window < 10**9
                return parser.upgrade.rest + b"".join(segments[number + 1 :])
            if not sound:
                break
        return None

    def check_memory(self, parser: Parser, segment: int) -> None:
        """The limits and two segments bound what is kept of a message: the one that it began in is not counted."""
        body = len(parser._spill) + sum(map(len, parser._chunks))
        head = sum(len(name) + len(value) for name, value in parser._fields.items())
        assert body <= LIMITS.message + 2 * segment
        assert head <= parser._max_raw + 2 * segment

    def tally(self, parser: Parser, outcomes: dict[str, int]) -> None:
        for message in parser.inbox:
            assert isinstance(message, Message)
            assert len(message.body) <= LIMITS.message
            for name, value in message.headers.items():
                assert not {"\r", "\n", "\0"} & {*name, *value}
            outcomes["message"] += 1
        fault = parser.fault
        if isinstance(fault, ProtocolViolation):
            outcomes["violation"] += 1
        elif isinstance(fault, TooLarge) and fault.id == "pymicro.transport.http":
            outcomes["too large"] += 1
        elif isinstance(fault, Error):
            assert isinstance(parser, ResponseParser)
            outcomes["status"] += 1
        else:
            assert fault is None
            outcomes["upgrade"] += parser.upgrade is not None


class Told:
    """What a parser of frames tells, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def message(self, channel: int, message: Message, size: int) -> None:
        assert len(message.body) <= LIMITS.message
        assert sum(len(name) + len(value) for name, value in message.headers.items()) <= LIMITS.headers
        self._tell("message", channel, dict(message.headers), message.body)

    def piece(self, channel: int, size: int) -> bool:
        self._tell("piece", channel)
        return channel != 5

    def discarded(self, channel: int, size: int) -> None:
        self._tell("discarded", channel)

    def refuse(self, channel: int, error: Error, size: int) -> None:
        self._tell("refuse", channel, type(error))

    def credit(self, channel: int, size: int) -> None:
        self._tell("credit", channel, size)

    def closed(self, channel: int, received: int, *, refused: bool) -> None:
        self._tell("closed", channel, received, refused)

    def _tell(self, *event: Any) -> None:
        self.events.append(event)


class TestFrames:
    def test_broken_inputs_are_frames_or_violations_however_they_are_split(self) -> None:
        chance = random.Random(SEED + 2)
        outcomes: dict[str, int] = {}
        for _ in range(COUNT):
            data = self.broken(chance)
            whole, pieces = self.told([data]), self.told(split(data, chance))
            assert whole == pieces
            for event in whole:
                outcomes[event[0]] = outcomes.get(event[0], 0) + 1
        assert set(outcomes) == {"message", "piece", "discarded", "refuse", "credit", "closed", "violation"}
        assert all(count > 20 for count in outcomes.values()), outcomes

    async def test_a_side_bears_them_whatever_its_user_does_meanwhile(self) -> None:
        chance = random.Random(SEED + 4)
        outcomes = {"taken": 0, "refused": 0, "violation": 0}
        for number in range(COUNT):
            serving = number % 2 == 0
            side = Side(serving=serving)
            if not serving:
                for _ in range(3):
                    channel = side.connection.open_channel()
                    await channel.send(Message())
                    side.channels.append(channel)
            data = self.broken(chance) if chance.random() < 0.5 else b"".join(chance.choices(SOUND, k=10))
            for segment in split(data, chance):
                side.connection.data_received(segment)
                if side.pipe.aborted:
                    outcomes["violation"] += 1
                    break
                for each in chance.sample(side.channels, k=len(side.channels) // 2):
                    await self.use(each, chance, outcomes)
                assert side.pipe.written <= 20_000, "it answers more than it gets"
                for each in side.channels:
                    held = sum(len(message.body) for message in each._inbox)
                    assert held <= side.connection._most_held + LIMITS.message
            await asyncio.gather(*(each.aclose() for each in side.channels))
            side.connection.connection_lost(None)
        assert all(count > 20 for count in outcomes.values()), outcomes

    async def use(self, channel: Channel, chance: random.Random, outcomes: dict[str, int]) -> None:
        """Do with a channel what its user may do, if that does not wait."""
        match chance.randrange(4):
            case 0:
                await channel.aclose()
            case 1 if channel._credit > 0 and channel.connected:
                await channel.send(Message(body=b"hello"))
            case _ if channel._inbox or channel._fault is not None or channel._closed:
                try:
                    await channel.recv()
                    outcomes["taken"] += 1
                except (Error, ConnectionFailed, Closed):
                    outcomes["refused"] += 1

    def broken(self, chance: random.Random) -> bytes:
        match chance.randrange(10):
            case 0:
                return chance.randbytes(chance.randint(1, 300))
            case 1:  # sound headers of frames with anything in them
                frames = [
                    frame(
                        chance.randrange(8),
                        chance.randrange(6),
                        chance.choice((b"", FIELDS, b"hello", chance.randbytes(chance.randrange(40)))),
                        chance.choice((0, 0, len(FIELDS), chance.randrange(40), 2**32 - 1)),
                        chance.choice((0, 0, 0, 1, 2, 255)),
                    )
                    for _ in range(chance.randint(1, 20))
                ]
                return b"".join(frames)
            case _:
                return mutated(chance, FRAMES, 8)

    def told(self, segments: list[bytes]) -> list[tuple[Any, ...]]:
        sink = Told()
        parser = FrameParser(LIMITS, "peer:1", sink)
        try:
            for segment in segments:
                parser.feed(segment)
                self.check_memory(parser, len(segment))
        except ProtocolViolation:
            sink.events.append(("violation",))
        return sink.events

    def check_memory(self, parser: FrameParser, size: int) -> None:
        """The limits and one segment bound what is kept: of one frame, of each message begun, and of all heads."""
        assert sum(map(len, parser._tail)) <= 14 + parser._max_payload + size
        assert len(parser._tail) <= 65
        assert all(len(each.body) <= LIMITS.message for each in parser._unfinished.values())
        assert sum(parser._head_sizes) <= 64 * 1024


class Pipe:
    """A transport that goes nowhere.

    Attributes:
        written: bytes.
    """

    def __init__(self) -> None:
        self.closed = False
        self.aborted = False
        self.written = 0

    def set_protocol(self, protocol: object) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = self.aborted = True

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> Any:
        return Pipe()

    def setsockopt(self, *option: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def close(self) -> None:
        self.closed = True


class Side:
    """One side of a connection of channels, of which every second one that the peer opens is taken."""

    def __init__(self, *, serving: bool) -> None:
        self.pipe = Pipe()
        self.channels: list[Channel] = []
        self.connection = Channels(
            cast("asyncio.Transport", self.pipe),
            LIMITS,
            1000,
            local="",
            remote="peer:1",
            accept=self._accept if serving else None,
            on_lost=lambda error: None,
        )

    def _accept(self, channel: Channel) -> bool:
        if channel.number % 2:
            self.channels.append(channel)
        return bool(channel.number % 2)


class Switched:
    """What is made of a connection whose peer takes channels."""

    def __init__(self, transport: Any, window: int, process: str) -> None:
        assert 0 < window < 10**9
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data


class TestHandshake:
    async def test_broken_answers_are_declined_however_they_are_split(self) -> None:
        chance = random.Random(SEED + 3)
        taken = 0
        for _ in range(COUNT):
            data = mutated(chance, ANSWERS, 2)
            whole, pieces = self.answer([data]), self.answer(split(data, chance))
            assert whole == pieces or len(data) > 8 * 1024
            taken += whole is not None
        assert COUNT // 20 < taken < COUNT

    def answer(self, segments: list[bytes]) -> bytes | None:
        """What came behind the answer; None when the peer declined, or is not done."""
        handshake = _Handshake("peer:1", LIMITS, cast("Any", Switched))
        pipe = Pipe()
        handshake.connection_made(cast("asyncio.Transport", pipe))
        for number, segment in enumerate(segments):
            handshake.data_received(segment)
            assert len(handshake._received) <= 8 * 1024 + 4 + len(segment)
            if handshake.answer.done():
                answer = cast("Switched | None", handshake.answer.result())
                assert pipe.closed == (answer is None)
                return None if answer is None else answer.received + b"".join(segments[number + 1 :])
        handshake.connection_lost(None)
        assert isinstance(handshake.answer.exception(), OSError)
        return None
