from __future__ import annotations

import importlib

import pytest

from pymicro.errors import InvalidOption
from pymicro.selector import RegistrySelector, RegistrySelectorOptions, _plugin
from pymicro.settings import Settings


def options(*argv: str) -> RegistrySelectorOptions:
    settings = Settings.resolve(
        keywords={"transport": "memory", "registry": "memory", "broker": "memory"}, environ={}, argv=argv
    )
    choice = settings.choices["selector", ""]
    assert isinstance(choice.options, RegistrySelectorOptions)
    return choice.options


def test_the_hook_offers_the_selector() -> None:
    (plugin,) = _plugin.pymicro_plugins()
    module, name = plugin.target.split(":")
    assert getattr(importlib.import_module(module), name) is RegistrySelector
    assert (plugin.kind, plugin.name, plugin.requires) == ("selector", RegistrySelector.name, ("registry",))


def test_it_is_the_default() -> None:
    assert options() == RegistrySelectorOptions()


@pytest.mark.parametrize("name", ["registry", "cache"])
def test_flags_set_its_options(name: str) -> None:
    chosen = options(
        f"--selector={name}",
        "--selector_registry_strategy=least_conn",
        "--selector_registry_lookup_timeout=250ms",
        "--selector_registry_idle=5m",
        "--selector_registry_max_services=7",
        "--selector_registry_eject=2s",
        "--selector_registry_eject_max=1m",
    )
    assert chosen == RegistrySelectorOptions(
        strategy="least_conn", lookup_timeout=0.25, idle=300.0, max_services=7, eject=2.0, eject_max=60.0
    )


def test_a_strategy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidOption, match="random, round_robin, least_conn"):
        options("--selector_registry_strategy=fastest")
