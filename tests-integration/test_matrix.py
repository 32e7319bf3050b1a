"""The same service and caller over every pair of registry, transport and broker, chosen by flags only."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from pymicro_testing.servers import NativeServer

REGISTRIES = ("mdns", "etcd", "consul", "nats")
TRANSPORTS = ("http", "nats", "rabbitmq")
BROKERS = {
    "http": ("http",),
    "nats": ("nats",),
    "jetstream": ("nats", "--broker_nats_jetstream"),
    "rabbitmq": ("rabbitmq",),
    "durable": ("rabbitmq", "--broker_rabbitmq_durable"),
    "redis": ("redis",),
    "kafka": ("kafka",),
}

#: What needs no server.
SERVERLESS = {"mdns", "http"}

#: Each registry with each broker; the transports go round, so that each meets all of both.
ROWS = [
    (registry, TRANSPORTS[(first + second) % len(TRANSPORTS)] if registry != "mdns" else "http", broker)
    for first, registry in enumerate(REGISTRIES)
    for second, broker in enumerate(BROKERS)
]


def test_every_pair_is_there() -> None:
    pairs = {(registry, transport) for registry in REGISTRIES for transport in TRANSPORTS}
    addressless = {("mdns", "nats"), ("mdns", "rabbitmq")}  # mDNS carries IP addresses only
    assert {row[:2] for row in ROWS} == pairs - addressless
    assert {row[1:] for row in ROWS} == {(transport, broker) for transport in TRANSPORTS for broker in BROKERS}
    assert {row[::2] for row in ROWS} == {(registry, broker) for registry in REGISTRIES for broker in BROKERS}


def chosen(kind: str, name: str, server: Callable[..., NativeServer], *flags: str) -> list[str]:
    """The flags for a plugin on the session's server."""
    address = [] if name in SERVERLESS else [f"--{kind}_address={server(name).address}"]
    return [f"--{kind}={name}", *address, *flags]


@pytest.mark.parametrize(("registry", "transport", "broker"), ROWS, ids=["-".join(row) for row in ROWS])
async def test_call_stream_and_events(
    registry: str, transport: str, broker: str, server: Callable[..., NativeServer], start: Any
) -> None:
    flags = [
        *chosen("registry", registry, server),
        *chosen("transport", transport, server),
        *chosen("broker", BROKERS[broker][0], server, *BROKERS[broker][1:]),
        "--drain_delay=0",
    ]
    node = await start("matrix_node.py", *flags)
    await node.says("service started")
    caller = await start("matrix_caller.py", *flags)
    assert await caller.ended() == 0, "\n".join(caller.log)
    assert caller.printed == ["Hello John", "counted 4950", "heard 10"]
    node.signal(signal.SIGTERM)
    assert await node.ended() == 0, "\n".join(node.log)
    assert not [line for line in (*caller.log, *node.log) if " INFO " not in line]
