"""Registries in a domain of their own, and machines with other networks than this one."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pymicro.plugins import Build
from pymicro.registry import Node, ServiceRecord
from pymicro_registry_mdns import MdnsOptions
from pymicro_registry_mdns._registry import MdnsRegistry
from pymicro_testing import registry

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, linux/sched.h
_PEER = Path(__file__).with_name("peer.py")


@pytest.fixture
def options() -> MdnsOptions:
    """Loopback, a domain that nobody else has, and a watch that asks often."""
    return MdnsOptions(domain=f"t{uuid.uuid4().hex[:12]}", interfaces=("127.0.0.1",), refresh=0.1)


@pytest.fixture
async def open_registry(options: MdnsOptions) -> AsyncIterator[Callable[..., Any]]:
    """Opens a registry, by default with `options`; keywords replace some. All are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_registry(build: Build | None = None, **changes: Any) -> MdnsRegistry:
            registry = MdnsRegistry(msgspec.structs.replace(options, **changes), build or Build())
            return await stack.enter_async_context(registry)

        yield open_registry


@pytest.fixture
def record() -> Callable[..., ServiceRecord]:
    """A record of one node."""

    def record(
        name: str = "greeter", id: str = "", address: str = "127.0.0.1:9000", version: str = "1.0.0", **metadata: str
    ) -> ServiceRecord:
        return ServiceRecord(name, version, nodes=(Node(id or f"{name}-{uuid.uuid4()}", address, metadata),))

    return record


@pytest.fixture
def until() -> Callable[..., Any]:
    """Takes snapshots until one fits."""
    return functools.partial(registry.until, within=10)


@pytest.fixture
def peer(options: MdnsOptions) -> Callable[..., Any]:
    """Runs a registry in a process of its own, with one record registered when the context is entered."""

    @asynccontextmanager
    async def peer(service: ServiceRecord, *prefix: str, **changes: Any) -> AsyncIterator[asyncio.subprocess.Process]:
        given = msgspec.to_builtins(msgspec.structs.replace(options, **changes))
        process = await asyncio.create_subprocess_exec(
            *prefix,
            *(sys.executable, str(_PEER), json.dumps({"options": given, "service": msgspec.to_builtins(service)})),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not prefix:
                assert await process.stdout.readline() == b"registered\n"
            yield process
        finally:
            process.stdin.close()
            await process.wait()

    return peer


class Network:
    """The network of a machine of its own, with loopback down at first. The test runs inside."""

    def run(self, command: str) -> None:
        """Run a shell command there."""
        subprocess.run(command, shell=True, check=True)


@pytest.fixture
def network() -> Iterator[Network]:
    """The test's process moves to a network namespace with nothing but loopback, which is down."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(_NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())
        yield Network()
    finally:
        assert libc.setns(home, 0) == 0, os.strerror(ctypes.get_errno())
        os.close(home)
