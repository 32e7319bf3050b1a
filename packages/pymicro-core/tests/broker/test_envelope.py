"""Messages in JSON, as Go Micro writes and reads them."""

from __future__ import annotations

import pytest

from pymicro.broker import envelope
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits


def test_what_is_written_is_read_again() -> None:
    message = Message(Headers({"Content-Type": "application/json", "X": "ä"}), bytes(range(256)))
    read, key = envelope.read(envelope.write("orders", message, "customer 1"))
    assert (read.body, key) == (message.body, "customer 1")
    assert dict(read.headers.items()) == {"Content-Type": "application/json", "X": "ä", "Micro-Topic": "orders"}


def test_headers_are_spelled_as_go_micro_looks_them_up() -> None:
    message = Message(Headers({"content-type": "text/plain", "micro-id": "7"}), b"{}")
    assert envelope.write("t", message, None) == (
        b'{"Header":{"Content-Type":"text/plain","Micro-ID":"7","Micro-Id":"7","Micro-Topic":"t"},"Body":"e30="}'
    )


def test_a_topic_that_the_headers_name_stays() -> None:
    assert envelope.spelled("here", Message(Headers({"micro-topic": "there"})), None) == {"Micro-Topic": "there"}


def test_null_is_empty() -> None:
    assert envelope.read(b'{"Header":null,"Body":null}') == (Message(), None)


@pytest.mark.parametrize("data", [b"", b"[]", b"text", b'{"Body":"?"}', b'{"Header":{"a":1}}', b'"\xff"'])
def test_anything_else_is_no_envelope(data: bytes) -> None:
    with pytest.raises(ValueError, match="no envelope"):
        envelope.read(data)


def test_the_longest_envelope_has_room_for_the_largest_message() -> None:
    limits = Limits(message=1000, headers=200)
    message = Message(Headers({"x": "\x01" * 190}), b"x" * 1000)
    limits.check(message)
    assert len(envelope.write("t", message, None)) <= envelope.longest(limits)
