"""Registries: who runs what, and where."""

from pymicro.record import Endpoint, Node, ServiceRecord, Value
from pymicro.registry._contract import Registration, RegistrationState, Registry, Snapshot

__all__ = [
    "Endpoint",
    "Node",
    "Registration",
    "RegistrationState",
    "Registry",
    "ServiceRecord",
    "Snapshot",
    "Value",
]
