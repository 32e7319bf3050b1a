"""Whatever comes, the parser answers with messages or with one of the three faults."""

from __future__ import annotations

import random

from pymicro.errors import Error, ProtocolViolation, TooLarge
from pymicro.message import Message
from pymicro.plugins import Limits
from pymicro_transport_http._protocol import Parser, RequestParser, ResponseParser

LIMITS = Limits(message=2000, headers=800, buffer=1000)
SEEDS = (
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nMicro-Id: 1\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"GET /x HTTP/1.0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nMicro-Error: \xc3\xa9\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nwhy",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2001\r\n\r\n" + b"x" * 2001,
    b"POST / HTTP/1.1\r\nHost: x\r\nMicro-Error: " + b"x" * 800 + b"\r\n\r\n",
)
TOKENS = (b"\r\n", b"\n", b"\0", b": ", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0", b"9" * 30)


def mutated(chance: random.Random) -> bytes:
    data = bytearray(b"".join(chance.choices(SEEDS, k=chance.randint(1, 4))))
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
    while data:
        size = chance.choice((1, 2, 10, 100, len(data)))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def test_a_thousand_broken_inputs() -> None:
    chance = random.Random(20260807)
    outcomes = {"message": 0, "violation": 0, "too large": 0, "status": 0}
    for _ in range(1000):
        data = mutated(chance)
        parser: Parser
        for parser in (RequestParser(LIMITS, "peer:1"), ResponseParser(LIMITS, "peer:1")):
            for piece in split(data, chance):
                if not parser.feed(piece):
                    break
            tally(parser, outcomes)
    assert all(count > 50 for count in outcomes.values()), outcomes


def tally(parser: Parser, outcomes: dict[str, int]) -> None:
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


def test_how_the_bytes_are_split_does_not_matter() -> None:
    chance = random.Random(6)
    for _ in range(300):
        data = mutated(chance)
        whole, pieces = RequestParser(LIMITS, ""), RequestParser(LIMITS, "")
        whole.feed(data)
        for piece in split(data, chance):
            if not pieces.feed(piece):
                break
        assert [(m.headers, m.body) for m in whole.inbox] == [(m.headers, m.body) for m in pieces.inbox]
        assert isinstance(whole.fault, TooLarge) or type(whole.fault) is type(pieces.fault)
