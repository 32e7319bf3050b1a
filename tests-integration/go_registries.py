"""What Go and Python programs find in one registry."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any, Final

from go_peers import GoProgram
from pymicro.plugins import Build, Plugin
from pymicro.registry import Registry, ServiceRecord, Snapshot

#: Seconds for an operation of a registry that a test opens.
_OPERATION: Final = 5.0


def registry_of(kind: str, address: str, **options: Any) -> Registry:
    """The registry of the plugin `pymicro-registry-<kind>`, not open yet."""
    plugin: Plugin
    [plugin] = importlib.import_module(f"pymicro_registry_{kind}._plugin").pymicro_plugins()
    module, _, name = plugin.target.partition(":")
    make = getattr(importlib.import_module(module), name)
    registry: Registry = make(plugin.options(**options), Build(addresses=(address,), timeout=_OPERATION))
    return registry


async def asked_by_go(asker: GoProgram, name: str) -> list[dict[str, Any]]:
    """What Go's `GetService` says; each service has its nodes. Some registries have an error for one that has none."""
    services = (await asker.ask("get", name=name))["services"] or []
    return [service | {"nodes": service["nodes"] or []} for service in services]


async def found_by_go(asker: GoProgram, name: str, nodes: int = 1) -> list[dict[str, Any]]:
    """What Go's `GetService` says, once so many nodes are in it: many registries need a moment for a new one."""
    async with asyncio.timeout(10):
        while True:
            services = await asked_by_go(asker, name)
            if sum(len(service["nodes"]) for service in services) >= nodes:
                return services


async def until(snapshots: AsyncIterator[Snapshot], nodes: int) -> tuple[ServiceRecord, ...]:
    """The services of the first snapshot with so many nodes. It comes long before a watch asks again."""
    async with asyncio.timeout(8):
        async for snapshot in snapshots:
            if sum(len(service.nodes) for service in snapshot.services) == nodes:
                return snapshot.services
    raise AssertionError("the watch ended")
