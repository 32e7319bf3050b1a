"""Conformance cases and garbled bytes are met on both event loops, the other tests on uvloop, all on a real etcd."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
import pytest
from aetcd import rpc

from pymicro.plugins import TLS, Build
from pymicro.registry import Node, ServiceRecord
from pymicro_registry_etcd import EtcdOptions
from pymicro_registry_etcd._registry import EtcdRegistry
from pymicro_testing import registry
from pymicro_testing.loops import event_loops
from pymicro_testing.servers import EtcdServer

#: Seconds in which everything must happen, also after an outage.
PATIENCE = 5.0


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Any]:
    return event_loops() if item.path.name in ("test_conformance.py", "test_garbled.py") else event_loops("uvloop")


@pytest.fixture
def name() -> str:
    """A service that no other test has."""
    return f"greeter-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def open_registry(etcd_server: EtcdServer) -> AsyncIterator[Callable[..., Any]]:
    """Opens a registry, at `etcd_server` if no address is given; keywords are options. All are closed in the end."""
    async with AsyncExitStack() as stack:

        async def open_registry(
            *addresses: str, tls: TLS | None = None, timeout: float = 2.0, **options: Any
        ) -> EtcdRegistry:
            build = Build(addresses=addresses or (etcd_server.address,), tls=tls or TLS(), timeout=timeout)
            return await stack.enter_async_context(EtcdRegistry(EtcdOptions(**options), build))

        yield open_registry


@pytest.fixture
def record() -> Callable[..., ServiceRecord]:
    """A record with one node."""

    def record(name: str, id: str = "1", version: str = "1.0.0", **metadata: str) -> ServiceRecord:
        return ServiceRecord(name, version, nodes=(Node(f"{name}-{id}", "127.0.0.1:9000", metadata),))

    return record


class Etcd:
    """What an administrator, or another program, does to etcd."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.kv, self.leases = rpc.KVStub(channel), rpc.LeaseStub(channel)

    async def keys(self, name: str) -> dict[str, Any]:
        """The keys of a service."""
        prefix = f"/micro/registry/{name}/".encode()
        answer = await self.kv.Range(rpc.RangeRequest(key=prefix, range_end=prefix[:-1] + b"0"), timeout=PATIENCE)
        return {each.key.decode().rpartition("/")[2]: each for each in answer.kvs}

    async def put(self, key: str, value: bytes, lease: int = 0) -> None:
        """Put a value under a key of the registry."""
        request = rpc.PutRequest(key=f"/micro/registry/{key}".encode(), value=value, lease=lease)
        await self.kv.Put(request, timeout=PATIENCE)

    async def delete(self, key: str) -> None:
        """Delete a key of the registry."""
        await self.kv.DeleteRange(rpc.DeleteRangeRequest(key=f"/micro/registry/{key}".encode()), timeout=PATIENCE)

    async def revoke(self, lease: int) -> None:
        """End a lease."""
        await self.leases.LeaseRevoke(rpc.LeaseRevokeRequest(ID=lease), timeout=PATIENCE)

    async def ttl(self, lease: int) -> int:
        """The seconds that a lease was granted."""
        answer = await self.leases.LeaseTimeToLive(rpc.LeaseTimeToLiveRequest(ID=lease), timeout=PATIENCE)
        return int(answer.grantedTTL)

    async def compact(self) -> None:
        """Forget all changes up to now."""
        revision = (await self.kv.Range(rpc.RangeRequest(key=b"x"), timeout=PATIENCE)).header.revision
        await self.kv.Compact(rpc.CompactionRequest(revision=revision, physical=True), timeout=PATIENCE)


@pytest.fixture
async def etcd(etcd_server: EtcdServer) -> AsyncIterator[Etcd]:
    """A way to the server that owes nothing to the registry."""
    options = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100))
    async with grpc.aio.insecure_channel(etcd_server.address, options=options) as channel:
        yield Etcd(channel)


@pytest.fixture
def until() -> Callable[..., Any]:
    """Takes snapshots until one fits; those up to it are appended to `seen`."""
    return functools.partial(registry.until, within=PATIENCE)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Asks until the answer fits."""

    async def eventually(ask: Callable[[], Any], fits: Callable[[Any], bool], within: float = PATIENCE) -> Any:
        async with asyncio.timeout(within):
            while not fits(answer := await ask()):  # noqa: ASYNC110  # what etcd answers is no event
                await asyncio.sleep(0.02)
        return answer

    return eventually
