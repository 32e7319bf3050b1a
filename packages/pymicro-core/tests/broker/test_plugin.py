from __future__ import annotations

import importlib

from pymicro.broker import Broker, _plugin


def test_the_hook_offers_the_memory_broker() -> None:
    (plugin,) = _plugin.pymicro_plugins()
    module, name = plugin.target.split(":")
    broker = getattr(importlib.import_module(module), name)
    assert issubclass(broker, Broker)
    assert (plugin.kind, plugin.name) == ("broker", broker.name)
    assert broker(plugin.options(), None).capabilities
