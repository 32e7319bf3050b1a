"""Headers onto the wire."""

from __future__ import annotations

import pytest

from pymicro.metadata import Headers
from pymicro_transport_http._encoding import Wire, encode


def test_names_keep_their_spelling_and_values_are_utf_8() -> None:
    lines = encode(Headers({"Micro-Id": "1", "x-lower": "Grüße 日本 🙂"}))
    assert lines == "Micro-Id: 1\r\nx-lower: Grüße 日本 🙂\r\n".encode()


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\0", "\x0b", "\x7f", "\x1f"])
def test_a_value_cannot_end_its_line(end: str) -> None:
    lines = encode(Headers({"A": f"b{end}Evil: yes"}))
    assert lines == b"A: b%bEvil: yes\r\n" % (b" " * len(end))


def test_tabs_and_other_spaces_stay() -> None:
    assert encode(Headers({"A": "b\tc\u00a0d\u2028e"})) == "A: b\tc\u00a0d\u2028e\r\n".encode()


def test_a_lone_surrogate_is_replaced() -> None:
    assert encode(Headers({"A": "b\ud800c"})) == b"A: b?c\r\n"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nEvil", "a\0", "é", "a(b)", '"a"', "\ud800"])
def test_names_that_are_no_token_are_left_out(name: str) -> None:
    assert encode(Headers([(name, "x"), ("B", "y")])) == b"B: y\r\n"


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "TRANSFER-ENCODING", "Trailer", "Upgrade", "Expect", "Content-Encoding"]
)
def test_names_that_frame_messages_are_left_out(name: str) -> None:
    assert encode(Headers([(name, "x"), ("Connection", "close")])) == b"Connection: close\r\n"


def test_constant_headers_are_encoded_once() -> None:
    base = Headers({"Content-Type": "application/json"})
    first = encode(base.extend((("Micro-Id", "1"),)))
    kept = base.wire
    second = encode(base.extend((("Micro-Id", "2"),)))
    assert first == b"Content-Type: application/json\r\nMicro-Id: 1\r\n"
    assert second == b"Content-Type: application/json\r\nMicro-Id: 2\r\n"
    assert base.wire is kept
    assert encode(base) is kept.lines


def test_what_another_transport_kept_is_not_taken_for_lines() -> None:
    headers = Headers({"A": "b"})
    headers.wire = b"\x00\x01"
    assert encode(headers) == b"A: b\r\n"
    assert isinstance(headers.wire, Wire)


def test_any_number_of_names_is_encoded() -> None:
    for number in range(3000):
        assert encode(Headers({f"X-{number}": "y"})) == b"X-%d: y\r\n" % number
