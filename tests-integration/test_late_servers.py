"""A service that starts before its backend waits for it, and is found, called and heard when it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pymicro_testing.servers import NativeServer

LATE = [
    ("registry", "etcd"),
    ("registry", "consul"),
    ("registry", "nats"),
    ("transport", "nats"),
    ("transport", "rabbitmq"),
    ("broker", "nats"),
    ("broker", "rabbitmq"),
    ("broker", "redis"),
    ("broker", "kafka"),
]


@pytest.mark.parametrize(("kind", "name"), LATE, ids=["-".join(row) for row in LATE])
async def test_it_waits(
    kind: str, name: str, server: Callable[..., NativeServer], etcd_server: NativeServer, start: Any
) -> None:
    backend = server(name)
    flags = [f"--{kind}={name}", f"--{kind}_address={backend.address}", "--drain_delay=0"]
    if kind == "transport":  # multicast DNS knows only addresses
        flags += ["--registry=etcd", f"--registry_address={etcd_server.address}"]
    await backend.kill()
    node = await start("matrix_node.py", *flags)
    await node.says(backend.address)  # the complaint that it is not there
    await backend.start()
    await node.says("service started")
    if kind == "broker":  # before that, the queue is not there
        await node.says("subscription works again")
    caller = await start("matrix_caller.py", *flags)
    assert await caller.ended() == 0, "\n".join(caller.log)
    assert caller.printed == ["Hello John", "counted 4950", "heard 10"]
