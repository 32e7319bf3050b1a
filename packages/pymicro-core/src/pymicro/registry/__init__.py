"""Registries: who runs what, and where."""

from pymicro.record import Endpoint, Node, ServiceRecord, Value
from pymicro.registry._cache import Entry, RegistryCache
from pymicro.registry._contract import Registration, RegistrationState, Registry, Snapshot
from pymicro.registry._memory import MemoryCatalog, MemoryRegistry
from pymicro.registry._watch import SnapshotFeed

__all__ = [
    "Endpoint",
    "Entry",
    "MemoryCatalog",
    "MemoryRegistry",
    "Node",
    "Registration",
    "RegistrationState",
    "Registry",
    "RegistryCache",
    "ServiceRecord",
    "Snapshot",
    "SnapshotFeed",
    "Value",
]
