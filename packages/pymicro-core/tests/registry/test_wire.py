"""Records in JSON, as Go Micro writes and reads them."""

from __future__ import annotations

import json

import pytest

from pymicro.record import Endpoint, Node, ServiceRecord, Value
from pymicro.registry.wire import MAX_DEPTH, read_record, write_record

RECORD = ServiceRecord(
    "greeter",
    "1.2",
    {"team": "a"},
    (
        Endpoint("Say.Hello", Value("Request", "Request", (Value("name", "string"),)), None, {"stream": "true"}),
        Endpoint("Say.Bye"),
    ),
    (Node("greeter-1", "127.0.0.1:8080", {"zone": "b", "protocol": "mucp"}), Node("greeter-2", "127.0.0.1:8081")),
)


def test_what_is_written_is_read_again() -> None:
    assert read_record(write_record(RECORD)) == RECORD


def test_maps_are_written_in_the_order_of_their_names() -> None:
    assert b'{"protocol":"mucp","zone":"b"}' in write_record(RECORD)


def test_null_is_empty() -> None:
    node = b'{"id":"a-1","address":"","metadata":null}'
    data = b'{"name":"a","version":"","metadata":null,"endpoints":null,"nodes":[' + node + b"]}"
    assert read_record(data) == ServiceRecord("a", "", nodes=(Node("a-1", ""),))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"name":1}', b'"\xff"', b"[" * 100_000])
def test_anything_else_is_no_record(data: bytes) -> None:
    assert read_record(data) is None


def test_types_are_read_to_a_bounded_depth() -> None:
    value: dict[str, object] = {"name": "leaf", "type": "string"}
    for _ in range(100):
        value = {"name": "inner", "type": "Inner", "values": [value]}
    data = json.dumps({"name": "a", "endpoints": [{"name": "A.B", "request": value}]}).encode()
    record = read_record(data)
    assert record is not None
    read, depth = record.endpoints[0].request, 0
    while read is not None and read.values:
        read, depth = read.values[0], depth + 1
    assert depth == MAX_DEPTH


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        write_record(ServiceRecord("\ud800"))
