"""The endpoint that others post to: what it answers, and what it puts up with."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib
from base64 import b64encode
from contextlib import suppress
from typing import Any

import pytest

from pymicro.broker import Ack
from pymicro.plugins import Limits
from pymicro_testing import no_leaks

PATIENCE = 5.0
EMPTY = {"Header": {"Content-Type": "application/json", "Micro-Topic": "orders"}, "Body": "e30="}


class Door:
    """A broker with one subscription, and its address."""

    def __init__(self, consumer: Any, node: Any) -> None:
        self.consumer = consumer
        self.id = node.id
        self.host, _, port = node.address.partition(":")
        self.port = int(port)

    async def knock(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send something on a connection of its own; status, fields and body of the answer."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            writer.write(data)
            try:
                return await answer(reader)
            finally:
                writer.close()

    async def post(self, body: bytes, id: str | None = None, *fields: str) -> tuple[int, dict[str, str], bytes]:
        """Post a body to the subscription, or to another one."""
        return await self.knock(request(body, self.id if id is None else id, *fields))

    async def received(self) -> Any:
        """The next message that arrived."""
        async with asyncio.timeout(PATIENCE):
            (delivery,) = await self.consumer.receive(1)
        await self.consumer.settle(delivery, Ack())
        return delivery


def request(body: bytes, id: str, *fields: str) -> bytes:
    head = [f"POST /?id={id} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *fields = head.rstrip().split("\r\n")
    named = dict(field.split(": ", 1) for field in fields)
    return int(status.split()[1]), named, await reader.readexactly(int(named["Content-Length"]))


@pytest.fixture
def open_door(open_broker: Any, registry: Any) -> Any:
    async def open_door(options: Any = None, topic: str = "orders", **build: Any) -> Door:
        consumer = await (await open_broker(options, **build)).consume(topic)
        (record,) = await registry.get_service("micro.http.broker")
        return Door(consumer, record.nodes[0])

    return open_door


# what the registry says


async def test_a_subscription_is_registered_as_go_micro_does_it(open_broker: Any, registry: Any) -> None:
    broker = await open_broker()
    consumers = [await broker.consume("orders"), await broker.consume("orders", queue="packing")]
    records = {record.version: record for record in await registry.get_service("micro.http.broker")}
    assert records.keys() == {"ff.http.broadcast", "packing"}
    for record in records.values():
        (node,) = record.nodes
        assert re.fullmatch(r"orders-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", node.id)
        assert re.fullmatch(r"127\.0\.0\.1:\d+", node.address)
        assert node.metadata == {"broker": "http", "secure": "false", "topic": "orders"}
        assert (record.metadata, record.endpoints) == ({}, ())
    for consumer in consumers:
        await consumer.aclose()
    assert await registry.get_service("micro.http.broker") == ()


async def test_a_wildcard_address_is_registered_as_one_that_others_can_use(open_broker: Any, registry: Any) -> None:
    await (await open_broker(addresses=(":0",))).consume("orders")
    (record,) = await registry.get_service("micro.http.broker")
    assert not record.nodes[0].address.startswith(("0.0.0.0", ":", "[::]"))


async def test_a_publisher_does_not_listen(open_broker: Any) -> None:
    async with no_leaks():
        broker = await open_broker()
        await broker.aclose()
    broker = await open_broker()
    assert broker._listener is None


# answers


async def test_a_message_arrives_with_its_headers(open_door: Any) -> None:
    door = await open_door()
    headers = b'"Content-Type":"application/json","Micro-ID":"7","Micro-Topic":"orders","X-\\u00e9":"\\u003c"'
    body = b'{"Header":{%b},"Body":"cmF3IGJvZHk="}' % headers
    status, fields, text = await door.post(body)
    assert (status, text) == (200, b"")
    assert "Micro-Unsubscribed" not in fields
    delivery = await door.received()
    assert delivery.message.body == b"raw body"
    assert dict(delivery.message.headers) == {
        "Content-Type": "application/json", "Micro-ID": "7", "Micro-Topic": "orders", "X-é": "<",
    }  # fmt: skip
    assert (delivery.topic, delivery.key, delivery.count) == ("orders", None, 1)


@pytest.mark.parametrize("name", ["Micro-ID", "Micro-Id"])
async def test_both_spellings_of_the_id_are_read(open_door: Any, name: str) -> None:
    door = await open_door()
    await door.post(json.dumps({"Header": {"Micro-Topic": "orders", name: "7"}, "Body": None}).encode())
    headers = (await door.received()).message.headers
    assert headers["Micro-ID"] == headers["Micro-Id"] == "7"


@pytest.mark.parametrize("id", ["", "nobody", "orders-2e3314e6-8b03-4983-9dd8-98e241aa7735"])
async def test_an_unknown_subscription_is_no_error_as_in_go(open_door: Any, id: str) -> None:
    status, fields, text = await (await open_door()).post(json.dumps(EMPTY).encode(), id)
    assert (status, text) == (200, b"")
    assert fields["Micro-Unsubscribed"] == "true"


async def test_the_topic_of_the_subscription_counts(open_door: Any) -> None:
    door = await open_door(topic="orders.*")
    body = json.dumps({"Header": {"Micro-Topic": "orders.fruit"}, "Body": ""}).encode()
    assert (await door.post(body))[0] == 200
    assert (await door.received()).topic == "orders.*"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused_in_gos_words(open_door: Any, method: str) -> None:
    door = await open_door()
    status, fields, text = await door.knock(
        f"{method} /?id={door.id} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert (status, fields["Content-Type"]) == (405, "text/plain; charset=utf-8")
    assert text == b'{"id":"go.micro.broker","code":400,"detail":"Method not allowed","status":"Bad Request"}\n'


@pytest.mark.parametrize(
    "body",
    [
        b"{}", b"null", b'{"Header":null,"Body":null}', b'{"Header":{"Content-Type":"application/json"},"Body":"e30="}',
        b'{"Header":{"Micro-Topic":""},"Body":"e30="}',
    ],
)  # fmt: skip
async def test_a_message_without_a_topic_is_refused_in_gos_words(open_door: Any, body: bytes) -> None:
    status, fields, text = await (await open_door()).post(body)
    assert (status, fields["Content-Type"]) == (500, "text/plain; charset=utf-8")
    if body != b"null":
        assert (
            text == b'{"id":"go.micro.broker","code":500,"detail":"Topic not found","status":"Internal Server Error"}'
        )


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nope", b"[]", b'"text"', b"{", b'{"Header":{"a":1}}', b'{"Header":[]}', b'{"Body":"no base64!"}',
        b'{"Body":7}', b"\xff\xfe", b'{"Header":{"a":"\xff"}}', b'{"x":' + b"[" * 10_000,
        zlib.compress(json.dumps(EMPTY).encode()),
    ],
)  # fmt: skip
async def test_what_is_no_message_is_refused(open_door: Any, body: bytes) -> None:
    door = await open_door()
    status, _, text = await door.post(body)
    error = json.loads(text)
    assert (status, error["id"], error["code"]) == (500, "go.micro.broker", 500)
    assert error["detail"].startswith("Error parsing request body: ")
    assert (await door.post(json.dumps(EMPTY).encode()))[0] == 200


async def test_chunks_and_kept_connections_are_understood(open_door: Any) -> None:
    door = await open_door()
    body = json.dumps(EMPTY).encode()
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:])) + b"0\r\n\r\n"
    head = f"POST /?id={door.id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(door.host, door.port)
        for data in (head + chunked, request(b"nope", door.id), request(body, door.id)):
            writer.write(data)
        assert [(await answer(reader))[0] for _ in range(3)] == [200, 500, 200]
        writer.close()
    for _ in range(2):
        assert (await door.received()).message.body == b"{}"


# limits


async def test_large_messages_are_refused_before_they_are_read(open_door: Any) -> None:
    door = await open_door(limits=Limits(message=1000, headers=1000))
    endless = f"POST /?id={door.id} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n".encode()
    assert (await door.knock(endless))[0] == 413
    chunks = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    unsaid = f"POST /?id={door.id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks
    assert (await door.knock(unsaid))[0] == 413


@pytest.mark.parametrize(("body", "header", "status"), [(1000, 900, 200), (1001, 1, 413), (1, 1100, 413)])
async def test_the_limits_hold_for_what_is_in_the_json(open_door: Any, body: int, header: int, status: int) -> None:
    door = await open_door(limits=Limits(message=1000, headers=1000))
    headers = {"Micro-Topic": "orders", "X": "x" * header}
    text = json.dumps({"Header": headers, "Body": b64encode(bytes(body)).decode()}).encode()
    assert (await door.post(text))[0] == status


async def test_heads_are_bounded(open_door: Any, caplog: pytest.LogCaptureFixture) -> None:
    door = await open_door()
    with caplog.at_level(logging.INFO):
        assert (await door.post(b"{}", None, "X: " + "x" * 100_000))[0] == 400
        assert (await door.post(b"{}", None, *[f"X-{number}: x" for number in range(1000)]))[0] == 400
        assert (await door.knock(b"\x16\x03\x01\x02\0\1\0\r\n\r\n"))[0] == 400
        assert (await door.post(json.dumps(EMPTY).encode(), None, "Content-Length: 7"))[0] == 400
    assert caplog.records == [], "what strangers send is not logged"


@pytest.mark.parametrize("begin", [b"", b"POST /?id=x HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_connection_on_which_no_request_comes_is_closed(open_door: Any, begin: bytes) -> None:
    door = await open_door({"request_timeout": 0.1})
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(door.host, door.port)
        writer.write(begin)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_a_body_that_does_not_come_is_given_up(open_door: Any) -> None:
    door = await open_door({"request_timeout": 0.1})
    assert (await door.knock(request(b"x" * 100, door.id)[:-50]))[0] == 408


async def test_an_idle_connection_is_closed(open_door: Any) -> None:
    door = await open_door({"idle_timeout": 0.1})
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(door.host, door.port)
        writer.write(request(json.dumps(EMPTY).encode(), door.id))
        assert (await answer(reader))[0] == 200
        assert await reader.read() == b""
        writer.close()


async def test_one_connection_too_many_is_closed(open_door: Any) -> None:
    door = await open_door({"max_connections": 2})
    async with asyncio.timeout(PATIENCE):
        kept = [await asyncio.open_connection(door.host, door.port) for _ in range(2)]
        for reader, writer in kept:
            writer.write(request(json.dumps(EMPTY).encode(), door.id))
            assert (await answer(reader))[0] == 200
        reader, extra = await asyncio.open_connection(door.host, door.port)
        assert await reader.read() == b""
        for writer in (extra, *[writer for _, writer in kept]):
            writer.close()


async def test_a_subscription_is_bounded_in_bytes(open_door: Any) -> None:
    door = await open_door({"max_bytes": 1000}, timeout=0.1)
    large = json.dumps({**EMPTY, "Body": b64encode(bytes(2000)).decode()}).encode()
    assert (await door.post(large))[0] == 200, "an empty one takes any message"
    status, _, text = await door.post(json.dumps(EMPTY).encode())
    assert (status, json.loads(text)["detail"]) == (503, "the subscription has no room")
    await door.received()
    assert (await door.post(json.dumps(EMPTY).encode()))[0] == 200


async def test_a_publisher_that_leaves_while_it_waits_leaves_nothing(open_door: Any) -> None:
    door = await open_door({"max_messages": 1}, timeout=60)
    first, gone, last = [
        json.dumps({**EMPTY, "Body": b64encode(body).decode()}).encode() for body in (b"1", b"2", b"3")
    ]
    await door.post(first)
    async with asyncio.timeout(PATIENCE):
        _, leaving = await asyncio.open_connection(door.host, door.port)
        leaving.write(request(gone, door.id))
        waiting = asyncio.create_task(door.post(last))
        await asyncio.sleep(0.05)
        leaving.close()
        await leaving.wait_closed()
        await asyncio.sleep(0.05)
        assert (await door.received()).message.body == b"1"
        assert (await waiting)[0] == 200
    assert (await door.received()).message.body == b"3"


# ending


async def test_what_is_here_is_handed_out_after_detaching(open_door: Any) -> None:
    door = await open_door()
    await door.post(json.dumps(EMPTY).encode())
    await door.consumer.detach()
    assert "Micro-Unsubscribed" in (await door.post(json.dumps(EMPTY).encode()))[1]
    assert (await door.received()).message.body == b"{}"


async def test_those_that_wait_for_room_are_told_that_it_ends(open_door: Any) -> None:
    door = await open_door({"max_messages": 1}, timeout=60)
    await door.post(json.dumps(EMPTY).encode())
    waiting = asyncio.create_task(door.post(json.dumps(EMPTY).encode()))
    await asyncio.sleep(0.05)
    await door.consumer.detach()
    status, fields, _ = await waiting
    assert (status, fields["Micro-Unsubscribed"]) == (200, "true")


async def test_what_is_lost_at_the_end_is_counted_in_the_log(open_door: Any, caplog: pytest.LogCaptureFixture) -> None:
    door = await open_door()
    for _ in range(3):
        await door.post(json.dumps(EMPTY).encode())
    with caplog.at_level(logging.WARNING):
        await door.consumer.aclose()
    assert "messages lost topic=orders" in caplog.text
    assert "number=3" in caplog.text


async def test_closing_is_soon_whatever_is_connected(open_broker: Any, registry: Any) -> None:
    async with no_leaks():
        broker = await open_broker()
        await broker.consume("orders")
        (record,) = await registry.get_service("micro.http.broker")
        host, _, port = record.nodes[0].address.partition(":")
        peers = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        peers[0][1].write(b"POST / HT")
        peers[1][1].write(b"POST /?id=x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
        await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE):
            await broker.aclose()
        for _, writer in peers:
            writer.close()
