"""Heads that come again and again: what is recognised means what the parser would have made of it."""

from __future__ import annotations

import os
import random

import pytest

from pymicro.errors import TooLarge
from pymicro.message import Message
from pymicro.plugins import Limits
from pymicro_transport_http import _repeats
from pymicro_transport_http._protocol import Parser, RequestParser, ResponseParser

#: As in `test_fuzz.py`.
COUNT = int(os.environ.get("PYMICRO_FUZZ", "1000"))
SEED = int(os.environ.get("PYMICRO_FUZZ_SEED", "20260807"))

LIMITS = Limits(message=1000, headers=500, buffer=1000)
PART = b"POST / HTTP/1.1\r\nHost: peer:1\r\nContent-Type: text/plain\r\nTenant: blue"
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


def request(number: int = 7, body: bytes = b"ping", part: bytes = PART) -> bytes:
    return b"%b\r\nMicro-Id: %d\r\nTimeout: %d\r\nContent-Length: %d\r\n\r\n%b" % (
        part,
        number,
        number * 1000,
        len(body),
        body,
    )


def trained(part: bytes = PART) -> RequestParser:
    """A parser that has had the same head three times, in segments of one message each."""
    parser = RequestParser(LIMITS, "peer:1")
    for number in range(3):
        assert parser.feed(request(number, part=part))
    parser.inbox.clear()
    return parser


def bytewise(*segments: bytes, make: type[Parser] = RequestParser) -> Parser:
    """A parser that recognises nothing, since it never sees a whole message at once."""
    parser = make(LIMITS, "peer:1")  # type: ignore[call-arg]  # both kinds take the same
    data = b"".join(segments)
    for at in range(len(data)):
        if not parser.feed(data[at : at + 1]):
            break
    return parser


def meaning(messages: list[Message]) -> list[tuple[list[tuple[str, str]], dict[str, str], bytes]]:
    return [(list(m.headers.items()), m.headers.lowered, m.body) for m in messages]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The segments that are parsed, though they could have been recognised."""
    found: list[bytes] = []

    for kind in (_repeats.Requests, _repeats.Replies):

        def take(self: _repeats.Requests, data: bytes, take: object = kind.take) -> Message | None:
            message: Message | None = take(self, data)  # type: ignore[operator]
            if message is None:
                found.append(data)
            return message

        monkeypatch.setattr(kind, "take", take)
    return found


class TestRequests:
    def test_a_head_is_recognised_the_third_time(self, parsed: list[bytes]) -> None:
        part = PART + b"\r\nKind: recognised"
        parser = trained(part)
        assert parsed == [request(0, part=part), request(1, part=part)]
        assert parser.feed(request(8, b"pong", part))
        assert len(parsed) == 2
        [message] = parser.inbox
        assert dict(message.headers) == {
            "Content-Type": "text/plain",
            "Tenant": "blue",
            "Kind": "recognised",
            "Micro-Id": "8",
            "Timeout": "8000",
        }
        assert message.body == b"pong"
        assert parser.received == 4

    def test_it_is_recognised_on_other_connections_too(self, parsed: list[bytes]) -> None:
        trained()
        parsed.clear()
        parser = RequestParser(LIMITS, "peer:2")
        assert parser.feed(request(9))
        assert parsed == []
        assert meaning([*parser.inbox]) == meaning([*bytewise(request(9)).inbox])

    def test_a_head_that_changes_each_time_is_not_remembered(self, parsed: list[bytes]) -> None:
        parser = RequestParser(LIMITS, "peer:1")
        for number in range(5):
            assert parser.feed(request(number, part=PART + b"\r\nTrace: %d" % number))
        assert len(parsed) == 5
        assert len(parser.inbox) == 5

    def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_repeats, "_MAX_KNOWN", 3)
        for number in range(10):
            trained(PART + b"\r\nKind: bounded %d" % number)
        assert len(_repeats._known) <= 3

    @pytest.mark.parametrize(
        "segment",
        [
            request() + request(),
            request() + b"POST",
            request()[:-1],
            request(body=b""),
            request().replace(b"Micro-Id: 7", b"Micro-Id: 7 "),
            request().replace(b"Micro-Id: 7", b"Micro-Id: -7"),
            request().replace(b"Timeout: 7000\r\n", b""),
            request().replace(b"Timeout", b"timeout"),
            request().replace(b"Content-Length: 4", b"Content-Length: 04"),
            request().replace(b"\r\n\r\n", b"\r\nTenant: red\r\n\r\n"),
            request().replace(b"Tenant: blue", b"Tenant: blu"),
        ],
    )
    def test_what_is_not_exactly_the_same_is_parsed(self, segment: bytes) -> None:
        parser = trained()
        rest = b"g" if segment == request()[:-1] else b""
        for data in (segment, rest):
            if data:
                assert parser.feed(data)
        assert meaning([*parser.inbox]) == meaning([*bytewise(segment, rest).inbox])

    @pytest.mark.parametrize(
        "field",
        [
            b"Content-Length: 4",
            b"content-length: 3",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"Micro-Stream: 7",
            b"micro-id: 1",
            b"Timeout: 1",
            b"timeout: 1",
            b"Upgrade: x",
            b"tenant: red",
            b"Content-Length: 0\r\n\r\nPOST / HTTP/1.1\r\nHost: peer:1",
        ],
    )
    def test_what_could_be_read_in_two_ways_is_never_remembered(self, field: bytes, parsed: list[bytes]) -> None:
        part = PART + b"\r\n" + field
        before = {*_repeats._known}
        parser = RequestParser(LIMITS, "peer:1")
        for number in range(4):
            if not parser.feed(request(number, part=part)):
                break
        reference = bytewise(*(request(number, part=part) for number in range(4)))
        assert {*_repeats._known} == before
        assert meaning([*parser.inbox]) == meaning([*reference.inbox])
        assert type(parser.fault) is type(reference.fault)
        assert parser.streaming == reference.streaming

    def test_after_half_a_message_nothing_is_recognised(self) -> None:
        parser = trained()
        assert parser.feed(b"POST / HTTP/1.1\r\nHost: peer:1\r\nContent-Length: %d\r\n\r\n" % len(request()))
        assert parser.feed(request())
        [message] = parser.inbox
        assert message.body == request()

    def test_limits_hold(self) -> None:
        limits = Limits(message=10, headers=500, buffer=1000)
        trained()
        parser = RequestParser(limits, "peer:1")
        assert not parser.feed(request(body=b"x" * 11))
        assert isinstance(parser.fault, TooLarge)


class TestReplies:
    @pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
    def test_replies_are_what_they_are_however_they_come(self, split: bool, parsed: list[bytes]) -> None:
        data = REPLY % (2, b"{}")
        parser = ResponseParser(LIMITS, "peer:1")
        for segment in [data[:20], data[20:]] if split else [data]:
            assert parser.feed(segment)
        assert bool(parsed) is split
        assert meaning([*parser.inbox]) == meaning([*bytewise(data, make=ResponseParser).inbox])

    def test_an_unknown_type_and_an_error_are_parsed(self) -> None:
        for data in (
            (REPLY % (2, b"{}")).replace(b"application/json", b"text/html"),
            (REPLY % (0, b"")).replace(b"Content-Length", b"Micro-Error: EOS\r\nContent-Length"),
            REPLY % (2, b"{}") + REPLY % (4, b"null"),
        ):
            parser = ResponseParser(LIMITS, "peer:1")
            assert parser.feed(data)
            assert meaning([*parser.inbox]) == meaning([*bytewise(data, make=ResponseParser).inbox])

    def test_a_reply_after_half_a_reply_is_body(self) -> None:
        data = REPLY % (2, b"{}")
        parser = ResponseParser(LIMITS, "peer:1")
        assert parser.feed(data)
        assert parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data))
        assert parser.feed(data)
        assert [message.body for message in parser.inbox] == [b"{}", data]


def test_no_input_is_read_in_another_way_than_it_is_parsed() -> None:
    """The last message is changed at random places: recognised or not, it is what a parser alone makes of it."""
    chance = random.Random(SEED)
    pieces = [b"\r\n", b"\r\n\r\n", b" ", b"0", b"\0", b"\r\nTimeout: 1", request(), b"Content-Length: 4\r\n", b":"]
    for _ in range(COUNT):
        last = bytearray(request(chance.randint(0, 10**6), b"x" * chance.randint(0, 20)))
        for _ in range(chance.randint(0, 2)):
            at = chance.randrange(len(last))
            if chance.random() < 0.5:
                last[at] = chance.choice(b"0123456789\r\n: xC")
            else:
                last[at : at + chance.randint(0, 3)] = chance.choice(pieces)
        parser, first = RequestParser(LIMITS, ""), request(1)
        for data in (first, first, bytes(last)):
            if not parser.feed(data):
                break
        reference = bytewise(first, first, bytes(last))
        assert meaning([*parser.inbox]) == meaning([*reference.inbox]), last
        assert type(parser.fault) is type(reference.fault), last
