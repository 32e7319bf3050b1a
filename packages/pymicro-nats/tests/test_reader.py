"""What a server sends arrives cut anywhere."""

from __future__ import annotations

import random

import pytest

from pymicro_nats._reader import Reader

SENT = (
    b"PING\r\n"
    b"MSG tapped 1 5\r\nhello\r\n"
    b"MSG tapped 1 back 0\r\n\r\n"
    b"MSG other.topic 2 4\r\n\r\n\r\n\r\n"
    b"HMSG tapped 1 17 22\r\nNATS/1.0\r\nA: b\r\n\rabcde\r\n"
    b"HMSG tapped 1 7 17 17\r\nNATS/1.0\r\nA: b\r\n\r\r\n"
    b'INFO {"server_id":"x"}\r\n'
    b"MSG tapped 1 14\r\nMSG tapped 1 0\r\n"
    b"+OK\r\n"
)
TAPPED = [
    (b"tapped", b"", b"hello", None),
    (b"tapped", b"back", b"", None),
    (b"tapped", b"", b"abcde", b"NATS/1.0\r\nA: b\r\n\r"),
    (b"tapped", b"7", b"", b"NATS/1.0\r\nA: b\r\n\r"),
    (b"tapped", b"", b"MSG tapped 1 0", None),
]
OTHERS = [b"PING\r\n", b"MSG other.topic 2 4\r\n\r\n\r\n\r\n", b'INFO {"server_id":"x"}\r\n', b"+OK\r\n"]


def read(pieces: list[bytes]) -> tuple[list[tuple[object, ...]], list[bytes]]:
    tapped: list[tuple[object, ...]] = []
    others: list[bytes] = []
    reader = Reader({1: lambda *message: tapped.append(message)}, others.append)
    for piece in pieces:
        reader.feed(piece)
    return tapped, others


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, len(SENT)])
def test_messages_are_found_wherever_they_are_cut(size: int) -> None:
    assert read([SENT[at : at + size] for at in range(0, len(SENT), size)]) == (TAPPED, OTHERS)


def test_messages_are_found_in_pieces_of_any_size() -> None:
    draw = random.Random(1)
    for _ in range(500):
        cuts = sorted(draw.randrange(len(SENT)) for _ in range(draw.randrange(8)))
        pieces = [SENT[one:other] for one, other in zip([0, *cuts], [*cuts, len(SENT)], strict=True)]
        assert read(pieces) == (TAPPED, OTHERS)


@pytest.mark.parametrize(
    "line",
    [
        b"MSG",
        b"MSG tapped 1",
        b"MSG tapped one 5",
        b"MSG tapped 1 five",
        b"MSG tapped 1 -5",
        b"MSG tapped 1 a b 5",
        b"MSG tapped 1 99999999999",
        b"HMSG tapped 1 5",
        b"HMSG tapped 1 6 5",
        b"HMSG tapped 1 -1 5",
    ],
)
def test_a_line_that_makes_no_sense_ends_the_reading(line: bytes) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        read([SENT, line + b"\r\n", b"12345\r\n"])


def test_a_line_without_an_end_ends_the_reading() -> None:
    with pytest.raises(ValueError, match="without an end"):
        read([b"MSG " + b"x" * 2**20, b"x"])
