from __future__ import annotations

import importlib

import pytest

from pymicro.plugins import Host
from pymicro.selector import RegistrySelector, RegistrySelectorOptions, _plugin


def test_the_hook_offers_the_selector() -> None:
    (plugin,) = _plugin.pymicro_plugins()
    module, name = plugin.target.split(":")
    assert getattr(importlib.import_module(module), name) is RegistrySelector
    assert (plugin.kind, plugin.name, plugin.requires) == ("selector", RegistrySelector.name, ("registry",))
    assert plugin.options() == RegistrySelectorOptions()
