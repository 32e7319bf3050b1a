"""Conformance kit, fault proxy and leak checks for pymicro services and plugins.

The names are imported when they are first used: pytest loads this package at every start, whether or not a test
needs it, and must not load the core with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pymicro_testing._guard import NewCaseWarning, Weakened
    from pymicro_testing.broker import BrokerConformance
    from pymicro_testing.clock import ManualClock, settle
    from pymicro_testing.codec import CodecConformance, EnvelopeCodecConformance
    from pymicro_testing.fakes import Call, fake
    from pymicro_testing.faults import FaultProxy, Outage, Server
    from pymicro_testing.leaks import LeakError, no_leaks
    from pymicro_testing.mesh import Mesh
    from pymicro_testing.registry import RegistryConformance
    from pymicro_testing.selector import SelectorConformance
    from pymicro_testing.transport import TransportConformance

_MODULES: Final = {
    "BrokerConformance": "broker",
    "Call": "fakes",
    "CodecConformance": "codec",
    "EnvelopeCodecConformance": "codec",
    "FaultProxy": "faults",
    "LeakError": "leaks",
    "ManualClock": "clock",
    "Mesh": "mesh",
    "NewCaseWarning": "_guard",
    "Outage": "faults",
    "RegistryConformance": "registry",
    "SelectorConformance": "selector",
    "Server": "faults",
    "TransportConformance": "transport",
    "Weakened": "_guard",
    "fake": "fakes",
    "no_leaks": "leaks",
    "settle": "clock",
}

__all__ = [
    "BrokerConformance",
    "Call",
    "CodecConformance",
    "EnvelopeCodecConformance",
    "FaultProxy",
    "LeakError",
    "ManualClock",
    "Mesh",
    "NewCaseWarning",
    "Outage",
    "RegistryConformance",
    "SelectorConformance",
    "Server",
    "TransportConformance",
    "Weakened",
    "fake",
    "no_leaks",
    "settle",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
