"""The Redis broker's publish/subscribe: recorded payloads are read, and the same ones are published."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from recorded import Recording, unescaped
from redis.asyncio import Redis

from pymicro import Service
from pymicro_testing.servers import RedisServer

PATIENCE = 5.0
BROKER = Recording("redis_broker.json")


@dataclass
class Event:
    name: str = ""
    n: int = 0


@pytest.fixture
async def service(redis_server: RedisServer) -> AsyncIterator[Service]:
    service = Service(
        "events",
        environ={},
        transport="memory",
        registry="memory",
        broker="redis",
        broker_address=redis_server.address,
        broker_redis_mode="pubsub",
        drain_delay=0.0,
    )
    async with service:
        yield service


@pytest.fixture
async def go(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """The server, as somebody else sees it."""
    async with Redis(host="127.0.0.1", port=redis_server.port) as client:
        yield client


@BROKER.check(["json", "protobuf", "broker_raw", "py_json", "py_no_topic"])
async def test_a_recorded_payload_arrives(name: str, service: Service, go: Redis) -> None:
    vector = BROKER[name]
    async with asyncio.timeout(PATIENCE), service.subscription("rt", bytes, manual=True) as events:
        await go.publish("rt", vector.data)
        delivery = await anext(events)
        await delivery.ack()
    header, body = parts(vector.data)
    assert (delivery.message.headers, delivery.message.body) == (header, body)
    if vector.origin != "python":
        assert (header, body.decode()) == (vector.meaning["header"], vector.meaning["body"])


#: What the recorded programs published.
EVENTS: dict[str, dict[str, Any]] = {
    "json": {"event": Event("go1", 0), "metadata": {"X-Trace": "abc"}},
    "protobuf": {
        "event": StringValue(value="gopb"),
        "metadata": {"X-Trace": "abc"},
        "content_type": "application/protobuf",
    },
}


@pytest.mark.parametrize("name", EVENTS)
async def test_an_event_is_published_as_go_publishes_it(name: str, service: Service, go: Redis) -> None:
    async with asyncio.timeout(PATIENCE), listening(go, "rt") as payloads:
        await service.publish("rt", **EVENTS[name])
        header, body = parts(await anext(payloads))
    gos_header, gos_body = parts(BROKER[name].data)
    assert body == unescaped(gos_body)
    assert header.pop("Micro-ID") == header.pop("Micro-Id"), "in either spelling, for all versions of Go Micro"
    assert gos_header.pop("Micro-ID")
    assert header == gos_header


@asynccontextmanager
async def listening(go: Redis, channel: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The payloads that are published from now on."""
    async with go.pubsub() as listener:
        await listener.subscribe(channel)
        messages = listener.listen()
        await anext(messages)
        yield (message["data"] async for message in messages)


def parts(payload: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of an envelope."""
    envelope = json.loads(payload)
    return envelope["Header"], base64.b64decode(envelope["Body"], validate=True)


def test_every_vector_has_a_check() -> None:
    assert BROKER.unchecked == set()
