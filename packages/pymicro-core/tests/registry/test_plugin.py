from __future__ import annotations

import importlib

from pymicro.registry import MemoryRegistry, _plugin


def test_the_hook_offers_the_memory_registry() -> None:
    (plugin,) = _plugin.pymicro_plugins()
    module, name = plugin.target.split(":")
    assert getattr(importlib.import_module(module), name) is MemoryRegistry
    assert (plugin.kind, plugin.name) == ("registry", MemoryRegistry.name)
    assert MemoryRegistry(plugin.options(), None).name == "memory"
