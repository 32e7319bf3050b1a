"""pymicro: a service that publishes, and one that subscribes; bodies as bytes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from messaging import PREFETCH, QUEUE, Echo, Publish, Take
from pymicro import Service

_CONTENT_TYPE = "application/octet-stream"
_BROKERS: dict[str, dict[str, Any]] = {
    "nats": {"broker": "nats"},
    "jetstream": {"broker": "nats", "broker_nats_jetstream": True},
    "rabbitmq": {"broker": "rabbitmq", "broker_rabbitmq_durable": True},
    "redis_streams": {"broker": "redis"},
    "redis_pubsub": {"broker": "redis", "broker_redis_mode": "pubsub"},
    "kafka": {"broker": "kafka"},
}
DISTRIBUTIONS = {name: ("pymicro-core", f"pymicro-broker-{said['broker']}") for name, said in _BROKERS.items()}

CALLING = {
    "nats": ("pymicro-core", "pymicro-transport-nats", "pymicro-registry-nats"),
    "rabbitmq": ("pymicro-core", "pymicro-transport-rabbitmq"),
}


class Echoing:
    """What is called."""

    async def echo(self, data: bytes) -> bytes:
        """Give it back."""
        return data


def _service(backend: str, address: str) -> Service:
    logging.getLogger("pymicro").setLevel(logging.WARNING)
    return Service(
        "benchmark",
        environ={},
        registry="memory",
        transport="memory",
        broker_address=address,
        drain_delay=0.0,
        **_BROKERS[backend],
    )


@asynccontextmanager
async def publisher(backend: str, address: str, topic: str) -> AsyncIterator[Publish]:
    """See `Messenger`."""
    async with _service(backend, address) as service:

        async def publish(body: bytes) -> None:
            await service.publish(topic, body, content_type=_CONTENT_TYPE, timeout=30.0)

        yield publish


@asynccontextmanager
async def consumer(backend: str, address: str, topic: str, take: Take) -> AsyncIterator[None]:
    """See `Messenger`."""

    async def handle(body: bytes) -> None:
        await take(body)

    service = _service(backend, address)
    service.subscribe(
        topic, handle, queue="" if backend == "redis_pubsub" else QUEUE, concurrency=PREFETCH, prefetch=PREFETCH
    )
    async with service:
        yield


def _over(backend: str, address: str, name: str) -> Service:
    logging.getLogger("pymicro").setLevel(logging.WARNING)
    found: dict[str, Any] = {"registry": "memory"}
    if backend == "nats":
        found = {"registry": "nats", "registry_address": address}
    return Service(
        name, environ={}, broker="memory", transport=backend, transport_address=address, drain_delay=0.0, **found
    )


@asynccontextmanager
async def server(backend: str, address: str, topic: str) -> AsyncIterator[str]:
    """See `Calling`."""
    service = _over(backend, address, topic)
    service.handle(Echoing())
    async with service:
        assert service.server.node is not None
        yield f"{topic} {service.server.node.address}"


@asynccontextmanager
async def caller(backend: str, address: str, where: str) -> AsyncIterator[Echo]:
    """See `Calling`. Over NATS it finds the server by its name, over RabbitMQ it is told where it is."""
    name, node = where.split()
    async with _over(backend, address, "benchmark.client") as service:
        stub = service.client.stub(
            name, Echoing, address=None if backend == "nats" else node, content_type=_CONTENT_TYPE
        )
        yield stub.echo
