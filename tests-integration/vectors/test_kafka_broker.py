"""The Kafka broker: recorded records are read, and pymicro writes the same, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from recorded import Recording

from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro_broker_kafka import _wire

KAFKA = Recording("kafka_broker.json")
TOPIC = "vt1795252334"

BY_GO = KAFKA.names(".*", lambda vector: vector.origin != "python")
BY_PYTHON = KAFKA.names(".*", lambda vector: vector.origin == "python" and isinstance(vector.meaning, dict))

#: What Go's subscriber takes for granted when nobody says it; pymicro's handlers are asked what they expect.
ASSUMED = {"py_empty_header": {"Content-Type": "application/json"}}


class Record(NamedTuple):
    """What the driver gives."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def read(name: str) -> Message:
    """What the broker makes of a record."""
    vector = KAFKA[name]
    headers = [(key, value.encode()) for key, value in vector.meaning["record_headers"]]
    found = _wire.read(Record(vector.data, headers=headers), TOPIC, Limits())
    assert found is not None
    message, key = found
    assert key is None
    return message


@KAFKA.check(BY_GO)
def test_what_go_published_is_understood(name: str) -> None:
    message, meaning = read(name), KAFKA[name].meaning
    assert message.headers == {"Micro-Topic": TOPIC, **meaning["header"]}  # as Go does, the broker says where it was
    assert message.body == meaning["body"].encode()


@KAFKA.check(BY_GO)
def test_the_same_is_published(name: str) -> None:
    """But that the id stands in either spelling, for all versions of Go Micro, and the topic always."""
    meaning = KAFKA[name].meaning
    value, key = _wire.write(TOPIC, Message(Headers(meaning["header"]), meaning["body"].encode()), None)
    header = {**meaning["header"], "Micro-Topic": TOPIC}
    if "Micro-ID" in header:
        header["Micro-Id"] = header["Micro-ID"]
    written = _json(meaning["header"])
    assert KAFKA[name].data.startswith(b'{"Header":%b,' % written)
    assert value == KAFKA[name].data.replace(written, _json(header), 1)
    assert key == meaning["key"]


def _json(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


@KAFKA.check(BY_PYTHON)
def test_what_go_understood_is_understood_here(name: str) -> None:
    message, meaning = read(name), KAFKA[name].meaning
    ours, theirs = dict(message.headers), dict(meaning["go_headers"])
    assert ours.pop("Micro-Topic") in (TOPIC, "T")  # Go overwrites what the publisher says of it
    assert theirs.pop("Micro-Topic") == TOPIC
    assert {**ASSUMED.get(name, {}), **ours} == theirs
    assert set(ASSUMED.get(name, {})).isdisjoint(ours)
    assert message.body == json.loads(meaning["go_body"]).encode()


@KAFKA.check(["py_not_json"])
def test_what_is_no_envelope_is_a_body(name: str) -> None:
    """Go drops it. Here a handler may want it, and what it cannot read is a dead letter."""
    assert KAFKA[name].meaning == "dropped"
    found = _wire.read(Record(KAFKA[name].data), TOPIC, Limits())
    assert found == (Message(Headers({"Micro-Topic": TOPIC}), KAFKA[name].data), None)


def test_every_vector_has_a_check() -> None:
    assert KAFKA.unchecked == set()
