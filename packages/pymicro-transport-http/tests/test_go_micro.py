"""What Go Micro peers put on the wire, as recorded from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pymicro.errors import BadRequest
from pymicro.plugins import Limits
from pymicro_transport_http._protocol import Parser, RequestParser, ResponseParser

EXCHANGES = json.loads(Path(__file__).with_name("go_micro_messages.json").read_text(encoding="utf-8"))["exchanges"]


def parser_of(exchange: dict[str, Any]) -> Parser:
    return (RequestParser if exchange["side"] == "request" else ResponseParser)(Limits(), "go:1")


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange["name"])
@pytest.mark.parametrize("segment", [1, 7, 100_000])
def test_recorded_bytes_are_the_messages_they_mean(exchange: dict[str, Any], segment: int) -> None:
    data = exchange["text"].encode()
    parser = parser_of(exchange)
    for at in range(0, len(data), segment):
        parser.feed(data[at : at + segment])
    messages = [*parser.inbox]
    assert [message.body for message in messages] == [each["body"].encode() for each in exchange["messages"]]
    for message, expected in zip(messages, exchange["messages"], strict=True):
        assert {name: message.headers.get(name) for name in expected["headers"]} == expected["headers"]
        assert "Content-Length" not in message.headers
        assert "User-Agent" not in message.headers


def test_the_refusal_of_a_request_without_host() -> None:
    [exchange] = [each for each in EXCHANGES if each["name"] == "no_host.response"]
    parser = parser_of(exchange)
    parser.feed(exchange["text"].encode())
    parser.end()
    text = "400 Bad Request: missing required Host header"
    assert isinstance(parser.fault, BadRequest)
    assert parser.fault.detail == f"{text}: {text}"
