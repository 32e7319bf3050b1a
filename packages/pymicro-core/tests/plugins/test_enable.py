"""Enabling modules: what the program imports."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any

import msgspec
import pytest

from pymicro.errors import ConfigurationError, PluginConflict, PluginFailed, PluginIncompatible
from pymicro.plugins import NoOptions, Plugin, enable, hookimpl
from pymicro.plugins._host import Host, load
from pymicro.plugins.toolkit import option

PIGEON = """
from pymicro.plugins import Plugin, enable, hookimpl

class PigeonTransport:
    name = "pigeon"

@hookimpl
def pymicro_plugins():
    return [Plugin(kind="transport", name="pigeon", api=(1, 0), target=f"{__name__}:PigeonTransport")]

enable(__name__)
"""


class Wrong(msgspec.Struct, frozen=True, kw_only=True):
    where: Annotated[complex, option("A type that no flag can have.")] = 1j


class Unfit(msgspec.Struct, frozen=True, kw_only=True):
    retries: Annotated[int, option("A default beyond its own bound.", ge=1)] = 0


def described(name: str = "pigeon", **fields: Any) -> Plugin:
    given = {"kind": "transport", "name": name, "api": (1, 0), "target": "pigeon:Pigeon", **fields}
    return Plugin(**given)


def module(name: str, *plugins: Plugin, **hooks: Callable[..., object]) -> ModuleType:
    made = ModuleType(name)
    if plugins:
        made.pymicro_plugins = hookimpl(lambda: list(plugins))  # type: ignore[attr-defined]
    for hook, function in hooks.items():
        setattr(made, hook, function)
    return made


def test_a_local_module_needs_no_packaging(host: Host, site: Any) -> None:
    site.module("mytransport", PIGEON)
    site.module("my_plugins", "import mytransport\n")

    importlib.import_module("my_plugins")

    assert load(host.find("transport", "pigeon")).name == "pigeon"


def test_enabling_again_changes_nothing(host: Host) -> None:
    calls: list[Plugin] = []

    def describe() -> list[Plugin]:
        calls.append(described())
        return calls

    pigeon = module("pigeon", pymicro_plugins=hookimpl(describe))

    for _ in range(3):
        enable(pigeon)

    assert len(calls) == 1
    assert host.names("transport").count("pigeon") == 1


def test_a_module_may_be_named(host: Host, site: Any) -> None:
    site.module("mytransport", PIGEON.replace("enable(__name__)", ""))

    enable("mytransport")

    assert "pigeon" in host.names("transport")


def test_a_module_imported_anew_replaces_its_former_self(host: Host) -> None:
    enable(module("pigeon", described(target="pigeon:Old"), described("dove")))

    enable(module("pigeon", described(target="pigeon:New")))

    assert host.find("transport", "pigeon").target == "pigeon:New"
    assert "dove" not in host.names("transport")


def test_two_implementations_of_one_name_conflict(host: Host) -> None:
    enable(module("first", described(target="first:Pigeon")))

    with pytest.raises(PluginConflict, match=r"transport\.pigeon: one of module first and one of module second"):
        enable(module("second", described(target="second:Pigeon"), described("dove")))

    assert host.find("transport", "pigeon").target == "first:Pigeon"
    assert "dove" not in host.names("transport")


def test_an_alias_conflicts_as_a_name_does(host: Host) -> None:
    enable(module("first", described(target="first:Pigeon", aliases=("bird",))))

    with pytest.raises(PluginConflict, match=r"transport\.bird"):
        enable(module("second", described("bird", target="second:Bird")))


def test_two_modules_may_describe_one_implementation(host: Host) -> None:
    enable(module("first", described()))
    enable(module("second", described()))

    assert host.names("transport").count("pigeon") == 1


def test_one_name_may_be_of_two_kinds(host: Host) -> None:
    enable(module("birds", described("pigeon"), described("pigeon", kind="broker", target="birds:Broker")))

    assert host.find("broker", "pigeon").target == "birds:Broker"


@pytest.mark.parametrize(
    ("hooks", "text"),
    [
        ({}, "has no hook of pymicro: define one above"),
        ({"pymicro_plugins": lambda: ()}, "mark pymicro_plugins with @hookimpl"),
        ({"pymicro_plugin": lambda: ()}, "mark pymicro_plugin with @hookimpl; did you mean 'pymicro_plugins'"),
        ({"pymicro_plugin": hookimpl(lambda: ())}, "no hook 'pymicro_plugin'; did you mean 'pymicro_plugins'"),
        ({"pymicro_configure": hookimpl(lambda srvice: None)}, "srvice"),
        ({"pymicro_plugins": hookimpl(lambda: 1 / 0)}, "the hook pymicro_plugins failed: division by zero"),
        ({"pymicro_plugins": hookimpl(described)}, "returns a list of Plugin"),
        ({"pymicro_plugins": hookimpl(lambda: ["pigeon"])}, "returns a list of Plugin"),
    ],
)
def test_a_wrong_hook(host: Host, hooks: dict[str, Any], text: str) -> None:
    with pytest.raises(PluginFailed, match=text):
        enable(module("birds", **hooks))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "Pigeon"}, "the name 'Pigeon' may have a-z"),
        ({"aliases": ("a b",)}, "the name 'a b' may have a-z"),
        ({"kind": "bird"}, "there is no kind 'bird'; the kinds are transport"),
        ({"requires": ("bird",)}, "there is no kind 'bird'"),
        ({"target": "pigeon.Pigeon"}, "target 'pigeon.Pigeon' is not of the form"),
        ({"options": dict}, "options is a msgspec.Struct type"),
        ({"options": Wrong}, r"Wrong\.where cannot be an option"),
        ({"options": Unfit}, r"Unfit\.retries cannot be an option"),
    ],
)
def test_a_wrong_description(host: Host, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(PluginFailed, match=text):
        enable(module("birds", described(**fields)))


@pytest.mark.parametrize("api", [(2, 0), (0, 9), (1, 1)])
def test_another_version_of_the_plugin_api(host: Host, api: tuple[int, int]) -> None:
    text = rf"plugin transport\.pigeon \(birds\) was written for version {api[0]}\.{api[1]} .* has 1\.0"
    with pytest.raises(PluginIncompatible, match=text):
        enable(module("birds", described(api=api)))


def test_what_was_refused_leaves_no_trace(host: Host) -> None:
    broken = module("birds", described(target="nowhere"))
    with pytest.raises(ConfigurationError):
        enable(broken)

    enable(module("birds", described(options=NoOptions)))

    assert "pigeon" in host.names("transport")
