"""The NATS broker: what Go published is handled, and what pymicro publishes is what Go read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import nats
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from recorded import Recording

from pymicro import Service
from pymicro_testing.servers import NatsServer

PATIENCE = 5.0
BROKER = Recording("nats_broker.json")
SUBJECT = "nt.events"


@dataclass
class Event:
    name: str = ""
    n: int = 0


@pytest.fixture
async def service(nats_server: NatsServer) -> AsyncIterator[Service]:
    """A service with core NATS, as Go Micro has it."""
    async with Service(
        "shop", environ={}, transport="memory", registry="memory", broker="nats", broker_address=nats_server.address
    ) as service:
        yield service


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Any]:
    """A client that is not pymicro's."""
    connection = await nats.connect(f"nats://{nats_server.address}")
    yield connection
    await connection.close()


async def received(service: Service, connection: Any, name: str, kind: type[Any]) -> Any:
    """The delivery that a subscriber gets for a recorded payload."""
    async with asyncio.timeout(PATIENCE), service.subscription(SUBJECT, kind) as subscription:
        await connection.publish(SUBJECT, BROKER[name].data)
        return await anext(subscription)


EVENTS = {
    "publish_json": Event("ev<1>é", 0),
    "publish_protobuf": StringValue(value="pbmsg"),
    "publish_broker_raw": b"raw body",
    "python_publish": Event("from-py", 0),
    "python_publish_no_topic": Event("no-topic", 0),
}


@BROKER.check(EVENTS)
async def test_what_was_published_is_handled(service: Service, connection: Any, name: str) -> None:
    expected = EVENTS[name]
    delivery = await received(service, connection, name, type(expected))
    assert delivery.value == expected
    assert dict(delivery.message.headers) == json.loads(BROKER[name].text)["Header"]


@BROKER.check(["publish_json", "publish_protobuf"])
async def test_pymicro_publishes_the_same(service: Service, connection: Any, name: str) -> None:
    subscription = await connection.subscribe(SUBJECT)
    await connection.flush()
    recorded = json.loads(BROKER[name].text)
    kind = recorded["Header"]["Content-Type"]
    await service.publish(SUBJECT, EVENTS[name], content_type=kind, metadata={"X-Trace": "abc"})
    message = await subscription.next_msg(timeout=PATIENCE)
    published = json.loads(message.data)
    for payload in (published, recorded):
        assert payload["Header"].pop("Micro-ID")
    assert published["Header"].pop("Micro-Id"), "the spelling that older versions look up"
    assert published["Header"].items() >= recorded["Header"].items()
    assert (message.subject, message.reply) == (BROKER[name].meaning["subject"], BROKER[name].meaning["reply"])
    if kind == "application/protobuf":
        assert published["Body"] == recorded["Body"]


def test_every_vector_has_a_check() -> None:
    assert BROKER.unchecked == set()
