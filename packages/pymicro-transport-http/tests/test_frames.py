"""Bytes into frames, and headers into heads, without any I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest

from pymicro.errors import Error, ProtocolViolation, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro_transport_http._frames import FrameParser
from pymicro_transport_http._heads import Heads

LIMITS = Limits(message=200_000, headers=500, buffer=10_000)
WHOLE, BEGIN, MORE, END, HEAD, CREDIT, CLOSE = range(7)
PIECE = 64 * 1024


def frame(kind: int, channel: int, payload: bytes = b"", *, value: int = 0, head: int = 0) -> bytes:
    return struct.pack(">IIIBB", len(payload), channel, value, kind, head) + payload


def fields(*pairs: tuple[str, str]) -> bytes:
    return b"".join(b"%b\0%b\0" % (name.encode(), value.encode()) for name, value in pairs)


@dataclass
class Told:
    """What a parser tells."""

    messages: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    others: list[tuple[object, ...]] = field(default_factory=list)
    errors: list[tuple[int, type[Error]]] = field(default_factory=list)
    taken: int = 0
    wanted: bool = True

    def message(self, channel: int, message: Message, size: int) -> None:
        self.messages.append((channel, dict(message.headers), message.body))
        self.taken += size

    def piece(self, channel: int, size: int) -> bool:
        self.taken += size
        return self.wanted

    def discarded(self, channel: int, size: int) -> None:
        self.others.append(("discarded", channel))
        self.taken += size

    def refuse(self, channel: int, error: Error, size: int) -> None:
        self.errors.append((channel, type(error)))
        self.taken += size

    def credit(self, channel: int, size: int) -> None:
        self.others.append(("credit", channel, size))

    def closed(self, channel: int, received: int, *, refused: bool) -> None:
        self.others.append(("closed", channel, received, refused))


def told(*segments: bytes, limits: Limits = LIMITS) -> Told:
    sink = Told()
    parser = FrameParser(limits, "peer:1", sink)
    for segment in segments:
        parser.feed(segment)
    return sink


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


class TestMessages:
    def test_a_message_is_its_fields_and_its_body(self) -> None:
        block = fields(("Micro-Id", "7"), ("X-Text", "é"))
        data = frame(WHOLE, 3, block + b"hello", value=len(block))
        for sink in (told(data), told(*bytewise(data))):
            assert sink.messages == [(3, {"Micro-Id": "7", "X-Text": "é"}, b"hello")]
            assert sink.taken == len(data)

    def test_an_empty_message_is_one(self) -> None:
        assert told(frame(WHOLE, 1)).messages == [(1, {}, b"")]

    def test_pieces_make_a_message_though_others_come_between(self) -> None:
        block = fields(("A", "b"))
        data = (
            frame(BEGIN, 1, block + b"one", value=len(block))
            + frame(WHOLE, 2, b"small")
            + frame(BEGIN, 3, b"x")
            + frame(MORE, 1, b"two")
            + frame(END, 3, b"y")
            + frame(MORE, 1)
            + frame(END, 1, b"three")
        )
        for sink in (told(data), told(*bytewise(data))):
            assert sink.messages == [(2, {}, b"small"), (3, {}, b"xy"), (1, {"A": "b"}, b"onetwothree")]
            assert sink.taken == len(data)

    def test_a_head_that_was_named_comes_before_the_fields(self) -> None:
        constant, own = fields(("Content-Type", "application/json")), fields(("Micro-Id", "7"))
        sink = told(
            frame(HEAD, 0, constant, head=1)
            + frame(WHOLE, 1, own + b"{}", value=len(own), head=1)
            + frame(WHOLE, 1, b"{}", head=1)
            + frame(BEGIN, 1, b"{", head=1)
            + frame(END, 1, b"}")
        )
        json = {"Content-Type": "application/json"}
        assert sink.messages == [(1, json | {"Micro-Id": "7"}, b"{}"), (1, json, b"{}"), (1, json, b"{}")]

    def test_bytes_that_are_no_utf_8_are_replaced(self) -> None:
        assert told(frame(WHOLE, 1, b"A\0x\xffy\0", value=6)).messages == [(1, {"A": "x\ufffdy"}, b"")]

    def test_credit_and_ends_are_told(self) -> None:
        sink = told(frame(CREDIT, 5, value=70_000) + frame(CLOSE, 5, value=3) + frame(CLOSE, 0, head=1))
        assert sink.others == [("credit", 5, 70_000), ("closed", 5, 3, False), ("closed", 0, 0, True)]

    def test_what_nobody_wants_is_not_collected(self) -> None:
        sink = Told(wanted=False)
        parser = FrameParser(LIMITS, "", sink)
        parser.feed(frame(BEGIN, 1, b"x") + frame(MORE, 1, b"y") + frame(END, 1, b"z"))
        assert (sink.messages, sink.others) == ([], 2 * [("discarded", 1)])

    def test_what_was_begun_ends_with_its_channel(self) -> None:
        sink = Told()
        parser = FrameParser(LIMITS, "", sink)
        parser.feed(frame(BEGIN, 1, b"x"))
        parser.forget(1)
        parser.feed(frame(END, 1, b"y"))
        assert (sink.messages, sink.others) == ([], [("discarded", 1)])
        assert told(frame(BEGIN, 1, b"x") + frame(CLOSE, 1) + frame(END, 1, b"y")).messages == []


class TestLimits:
    def test_a_message_over_the_limit_is_refused_on_its_channel(self) -> None:
        pieces = frame(BEGIN, 1, PIECE * b"x") + 3 * frame(MORE, 1, PIECE * b"x") + frame(END, 1, b"x")
        sink = told(pieces + frame(WHOLE, 2, b"fine"))
        assert sink.errors == [(1, TooLarge)]
        assert sink.messages == [(2, {}, b"fine")]
        assert sink.taken == len(pieces) + 14 + 4

    def test_a_whole_message_over_the_limit_too(self) -> None:
        limits = Limits(message=1000, headers=500)
        data = frame(WHOLE, 1, 1001 * b"x") + frame(WHOLE, 1, 1000 * b"x")
        for sink in (told(data, limits=limits), told(*bytewise(data), limits=limits)):
            assert sink.errors == [(1, TooLarge)]
            assert sink.messages == [(1, {}, 1000 * b"x")]

    def test_a_message_of_exactly_the_limit_passes_with_its_fields(self) -> None:
        limits = Limits(message=1000, headers=500)
        block = fields(("A", "b"))
        assert len(told(frame(WHOLE, 1, block + 1000 * b"x", value=len(block)), limits=limits).messages) == 1

    def test_headers_over_the_limit_are_refused_on_their_channel(self) -> None:
        exact, over = fields(("A", 499 * "x")), fields(("A", 500 * "x"))
        for kind in (WHOLE, BEGIN):
            sink = told(
                frame(kind, 1, over, value=len(over)) + frame(WHOLE, 2, exact, value=len(exact)) + frame(END, 1, b"x")
            )
            assert sink.errors == [(1, TooLarge)]
            assert [channel for channel, _, _ in sink.messages] == [2]

    def test_the_head_counts(self) -> None:
        constant, own = fields(("A", 299 * "x")), fields(("B", 200 * "x"))
        sink = told(frame(HEAD, 0, constant, head=1) + frame(WHOLE, 1, own, value=len(own), head=1))
        assert sink.errors == [(1, TooLarge)]

    def test_headers_of_any_shape_pass_beside_a_full_piece(self) -> None:
        """Two separators come on top of each name, which may be one byte long, with an empty value."""
        limits = Limits(message=PIECE, headers=20)
        names = "abcdefghijklmnopqrst"
        block = fields(*((name, "") for name in names))
        data = frame(WHOLE, 1, block + PIECE * b"x", value=len(block))
        for sink in (told(data, limits=limits), told(data[:100], data[100:], limits=limits)):
            assert sink.errors == []
            assert sink.messages == [(1, dict.fromkeys(names, ""), PIECE * b"x")]

    @pytest.mark.parametrize("kind", [WHOLE, BEGIN])
    def test_a_frame_that_no_limit_allows_is_not_collected(self, kind: int) -> None:
        huge = struct.pack(">IIIBB", 200_000, 1, 150_000, kind, 0)
        sink = told(huge, *(20 * [10_000 * b"x"]), frame(WHOLE, 2, b"fine"))
        assert sink.errors == [(1, TooLarge)]
        assert sink.messages == [(2, {}, b"fine")]

    @pytest.mark.parametrize("kind", [WHOLE, BEGIN, MORE, END])
    def test_a_piece_that_is_too_large_is_a_violation_however_it_comes(self, kind: int) -> None:
        data = frame(BEGIN, 1) * (kind in (MORE, END)) + frame(kind, 1, (PIECE + 3 * LIMITS.headers + 1) * b"x")
        for segments in ([data], [data[:20], data[20:]], [data[:-1]]):
            with pytest.raises(ProtocolViolation):
                told(*segments)

    def test_headers_that_no_limit_allows_are_refused_however_they_come(self) -> None:
        data = frame(WHOLE, 1, 100_000 * b"x", value=99_990)
        for segments in ([data], [data[:20], data[20:]], [data[:-1], data[-1:]]):
            sink = told(*segments, frame(WHOLE, 2, b"fine"))
            assert sink.errors == [(1, TooLarge)]
            assert sink.messages == [(2, {}, b"fine")]

    def test_what_comes_in_tiny_segments_is_kept_as_one(self) -> None:
        parser = FrameParser(LIMITS, "", Told())
        parser.feed(struct.pack(">IIIBB", 60_000, 1, 0, WHOLE, 0))
        for _ in range(10_000):
            parser.feed(b"xy")
        assert len(parser._tail) < 200  # tiny objects take more memory than their bytes


class TestViolations:
    @pytest.mark.parametrize(
        "data",
        [
            frame(7, 1),
            frame(255, 0),
            frame(WHOLE, 1, b"abc", value=4),
            frame(WHOLE, 1, b"abc", head=1),
            frame(BEGIN, 1, b"abc", value=4),
            frame(BEGIN, 1, b"abc", head=200),
            frame(BEGIN, 1) + frame(BEGIN, 1),
            frame(BEGIN, 1) + frame(WHOLE, 1),
            frame(BEGIN, 1) + frame(WHOLE, 1, b"abc"),
            frame(MORE, 1, b"abc", value=1),
            frame(END, 1, b"abc", head=1),
            frame(WHOLE, 1, b"abc", value=3),
            frame(WHOLE, 1, b"a\0c", value=3),
            frame(WHOLE, 1, b"a\0", value=2),
            frame(WHOLE, 1, b"a\0b\0c\0", value=6),
            frame(HEAD, 1, b"a\0b\0", head=1),
            frame(HEAD, 0, b"a\0b\0", head=2),
            frame(HEAD, 0, b"a\0b\0", head=0),
            frame(HEAD, 0, b"a\0b\0", value=1, head=1),
            frame(HEAD, 0, b"a\0b", head=1),
            frame(HEAD, 0, fields(("a", 4095 * "x")), head=1),
            frame(CREDIT, 1, b"x", value=1),
            frame(CREDIT, 1, value=1, head=1),
            frame(CLOSE, 1, b"x"),
            frame(CLOSE, 1, head=2),
            struct.pack(">IIIBB", 2**32 - 1, 1, 0, MORE, 0),
            struct.pack(">IIIBB", 2**32 - 1, 0, 0, HEAD, 1),
            struct.pack(">IIIBB", 2**32 - 1, 0, 0, CLOSE, 1),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
        ids=lambda data: data[:20].hex(),
    )
    def test_what_makes_no_sense_is_a_violation(self, data: bytes) -> None:
        for segments in ([data], bytewise(data)):
            with pytest.raises(ProtocolViolation, match="not a channel frame") as failure:
                told(*segments)
            assert failure.value.address == "peer:1"

    def test_there_is_a_last_head(self) -> None:
        heads = b"".join(frame(HEAD, 0, fields(("N", str(number))), head=number) for number in range(1, 256))
        sink = told(heads + frame(WHOLE, 1, head=255))
        assert sink.messages == [(1, {"N": "255"}, b"")]
        with pytest.raises(ProtocolViolation):
            told(heads + frame(HEAD, 0, fields(("N", "256")), head=0))

    def test_heads_have_a_bound_together(self) -> None:
        """Each lives as long as the connection, and as objects takes many times its bytes."""
        heads = [frame(HEAD, 0, 1365 * b"a\0\0", head=number) for number in range(1, 18)]
        told(*heads[:16])
        with pytest.raises(ProtocolViolation, match="heads"):
            told(*heads)


class TestHeads:
    def encoded(self, heads: Heads, headers: Headers) -> tuple[int, bytes]:
        number, _, block = heads.encode(headers)
        return number, block

    def test_what_is_sent_again_is_named(self) -> None:
        written: list[bytes] = []
        heads = Heads(written.append)
        constant = Headers({"Content-Type": "application/json"})
        block = fields(("Content-Type", "application/json"))
        first = self.encoded(heads, constant.extend((("Micro-Id", "1"),)))
        second = self.encoded(heads, constant.extend((("Micro-Id", "2"),)))
        third = self.encoded(heads, constant)
        assert first == (0, block + fields(("Micro-Id", "1")))
        assert second == (1, fields(("Micro-Id", "2")))
        assert third == (1, b"")
        assert written == [frame(HEAD, 0, block, head=1)]

    def test_equal_heads_have_one_number(self) -> None:
        written: list[bytes] = []
        heads = Heads(written.append)
        for _ in range(3):
            headers = Headers({"A": "b"})
            heads.encode(headers)
            assert self.encoded(heads, headers) == (1, b"")
        assert len(written) == 1

    def test_no_headers_are_no_head(self) -> None:
        heads = Heads([].append)
        for _ in range(3):
            assert self.encoded(heads, Headers()) == (0, b"")

    def test_heads_that_are_too_large_or_too_many_go_with_each_message(self) -> None:
        written: list[bytes] = []
        heads = Heads(written.append)
        large = Headers({"A": 4095 * "x"})
        for _ in range(3):
            assert self.encoded(heads, large) == (0, fields(("A", 4095 * "x")))
        for number in range(300):
            headers = Headers({"N": str(number)})
            heads.encode(headers)
            heads.encode(headers)
        assert len(written) == 255
        assert self.encoded(heads, headers) == (0, fields(("N", "299")))

    def test_heads_that_are_too_large_together_go_with_each_message(self) -> None:
        written: list[bytes] = []
        heads = Heads(written.append)
        for number in range(20):
            headers = Headers({f"N{number}": 4000 * "x"})
            heads.encode(headers)
            heads.encode(headers)
        assert len(written) == 16
        told(*written)

    def test_each_connection_has_its_own(self) -> None:
        headers = Headers({"A": "b"})
        Heads([].append).encode(headers)
        written: list[bytes] = []
        assert self.encoded(Heads(written.append), headers) == (1, b"")
        assert written == [frame(HEAD, 0, fields(("A", "b")), head=1)]
