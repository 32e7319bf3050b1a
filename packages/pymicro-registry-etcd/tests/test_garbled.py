"""Bytes that arrive as others: an error or a new connection, and soon all is as before."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from pymicro.errors import ConnectionFailed
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import EtcdServer


@pytest.mark.parametrize("to_client", [True, False])
async def test_garbled_bytes_are_survived(
    open_registry: Any, record: Any, name: str, until: Any, etcd_server: EtcdServer, to_client: bool
) -> None:
    async with FaultProxy(etcd_server.address) as proxy:
        registry = await open_registry(proxy.address, timeout=1.0)
        async with registry.watch(name) as snapshots:
            for after in (0, 1, 5, 12, 60, 130):
                proxy.garble(after=after, size=3, to_client=to_client)
                id = f"after-{after}"
                registered = await registering(registry, record(name, id))
                seen = await until(snapshots, lambda snapshot, id=id: not snapshot.stale and ids(snapshot) == {id})
                assert [node.address for service in seen.services for node in service.nodes] == ["127.0.0.1:9000"]
                with suppress(ConnectionFailed):
                    await registered.aclose()
                await until(snapshots, lambda snapshot: not snapshot.stale and not ids(snapshot))
        await registry.aclose()


async def registering(registry: Any, record: Any) -> Any:
    async with asyncio.timeout(10):
        while True:
            with suppress(ConnectionFailed):
                return await registry.register(record, ttl=2)
            await asyncio.sleep(0.02)


def ids(snapshot: Any) -> set[str]:
    return {node.id.partition("-")[2].partition("-")[2] for service in snapshot.services for node in service.nodes}
