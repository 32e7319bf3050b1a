"""The bytes: what Go Micro's subscribers read, and what its publishers write."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pamqp.commands import Basic
from pamqp.frame import marshal, unmarshal
from pamqp.header import ContentHeader

from pymicro.errors import TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro_broker_rabbitmq import _wire

# The frame of a content header, recorded from `client.Publish` of Go Micro with the metadata X-Trace: abc.
GO_HEADER = (
    "AgACAAAAiwA8AAAAAAAAAAAAFSAAAAAAeQtNaWNyby1Ub3BpY1MAAAAEZXYudAhNaWNyby1JRFMAAAAkZDNkNDM0MzktNzA0Yy00ZDkyLTkyNGYt"
    "YjliNDZkZTE2OGRlB1gtVHJhY2VTAAAAA2FiYwxDb250ZW50LVR5cGVTAAAAEGFwcGxpY2F0aW9uL2pzb27O"
)


def properties_of(text: str) -> Basic.Properties:
    _, _, frame = unmarshal(base64.b64decode(text))
    assert isinstance(frame, ContentHeader)
    return frame.properties


def test_what_a_go_publisher_wrote() -> None:
    message, key = _wire.read("ev.t", properties_of(GO_HEADER), b'{"name":"go1","n":0}\n')
    assert key is None
    assert message.headers == {
        "Micro-Topic": "ev.t",
        "Micro-ID": "d3d43439-704c-4d92-924f-b9b46de168de",
        "X-Trace": "abc",
        "Content-Type": "application/json",
    }


def test_all_is_in_the_table_of_headers_and_spelled_as_go_looks_it_up() -> None:
    headers = Headers({"content-type": "application/json", "micro-topic": "t", "micro-id": "1", "X-a": "b"})
    written = _wire.properties("t", Message(headers, b"{}"), None, persistent=False)
    assert written.headers == {
        "Content-Type": "application/json",
        "Micro-Topic": "t",
        "Micro-ID": "1",
        "Micro-Id": "1",
        "X-a": "b",
    }
    assert written.content_type is None
    assert written.delivery_mode is None
    assert _wire.properties("t", Message(), None, persistent=True).delivery_mode == 2


@pytest.mark.parametrize("persistent", [False, True])
def test_what_is_written_is_what_the_driver_reads(persistent: bool) -> None:
    headers = Headers({"Content-Type": "text/plain", "X-Größe": "ä" * 300, "X-empty": "", "n" * 128: "v"})
    written = _wire.properties("t", Message(headers), "key", persistent=persistent)
    written.message_id = "an id"
    _, _, frame = unmarshal(marshal(ContentHeader(0, 7, written), 1))
    assert isinstance(frame, ContentHeader)
    assert frame.body_size == 7
    assert dict(frame.properties) == dict(written)


def test_a_key_travels_and_is_no_header() -> None:
    message, key = _wire.read("t", _wire.properties("t", Message(), "Größe", persistent=False), b"")
    assert key == "Größe"
    assert dict(message.headers) == {"Micro-Topic": "t"}


def test_values_that_are_no_text_become_it() -> None:
    table: dict[str, Any] = {"n": 7, "yes": True, "raw": b"\xff", "list": [1], "x-delivery-count": 3}
    message, _ = _wire.read("t", Basic.Properties(headers=table), b"")
    assert dict(message.headers) == {"n": "7", "yes": "true", "raw": "\ufffd", "list": "[1]", "Micro-Topic": "t"}


def test_a_content_type_that_other_clients_give_counts() -> None:
    message, _ = _wire.read("t", Basic.Properties(content_type="application/json"), b"{}")
    assert message.headers["Content-Type"] == "application/json"
    both = Basic.Properties(content_type="text/plain", headers={"Content-Type": "application/json"})
    assert _wire.read("t", both, b"{}")[0].headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("table", "redelivered", "count"),
    [(None, False, 1), (None, True, 2), ({"x-delivery-count": 4}, True, 5), ({"x-delivery-count": "4"}, False, 1)],
)
def test_deliveries_are_counted(table: Any, redelivered: bool, count: int) -> None:
    assert _wire.count(Basic.Properties(headers=table), redelivered=redelivered) == count


def test_headers_that_do_not_fit_into_a_frame() -> None:
    _wire.properties("t", Message(Headers({"a": "x" * 100_000})), None, persistent=False)
    with pytest.raises(TooLarge):
        _wire.properties("t", Message(Headers({"a": "日" * 50_000})), None, persistent=False)
