"""Reads what the hooks of one module say, and refuses what makes no sense."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

import msgspec
import pluggy

from pymicro.errors import ConfigurationError, PluginFailed, PluginIncompatible
from pymicro.plugins._installed import normalise
from pymicro.plugins._kinds import KINDS
from pymicro.plugins._options import describe_options
from pymicro.plugins._plugin import API_VERSION, Hooks, Plugin

_NAME: Final = r"[a-z0-9_]+"
_TARGET: Final = r"\w+(\.\w+)*:\w+"


def new_manager() -> pluggy.PluginManager:
    """A manager that knows our hooks."""
    manager = pluggy.PluginManager("pymicro")
    manager.add_hookspecs(Hooks)
    return manager


def read_module(module: ModuleType) -> tuple[Plugin, ...]:
    """The plugins that `module` describes; empty for one that has other hooks only.

    Raises:
        PluginFailed: it has no hook, a misspelt one, or a description that makes no sense.
        PluginIncompatible: it was written for another version of the plugin API.
    """
    manager = new_manager()
    try:
        manager.register(module, module.__name__)
    except pluggy.PluginValidationError as error:
        raise PluginFailed(f"{module.__name__}: {error}") from error
    _check_hooks(module, manager)
    try:
        plugins = [plugin for result in manager.hook.pymicro_plugins() for plugin in _listed(result)]
    except Exception as error:
        raise PluginFailed(f"{module.__name__}: the hook pymicro_plugins failed: {error}") from error
    for plugin in plugins:
        _check(plugin, module.__name__)
    return tuple(plugins)


def _check_hooks(module: ModuleType, manager: pluggy.PluginManager) -> None:
    callers = manager.get_hookcallers(module) or []
    for caller in callers:
        if not caller.has_spec():
            raise PluginFailed(f"{module.__name__}: there is no hook {caller.name!r}; {_hook_help(caller.name)}")
    if callers:
        return
    unmarked = next((name for name in vars(module) if name.startswith("pymicro_") and callable(vars(module)[name])), "")
    advice = (
        f"mark {unmarked} with @hookimpl; {_hook_help(unmarked)}"
        if unmarked
        else "define one above the call of enable(); " + _hook_help("")
    )
    raise PluginFailed(f"{module.__name__} has no hook of pymicro: {advice}")


def _hook_help(name: str) -> str:
    import difflib

    hooks = [hook for hook in vars(Hooks) if hook.startswith("pymicro_")]
    near = [] if name in hooks else difflib.get_close_matches(name, hooks, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"The hooks are {' and '.join(hooks)}."


def _listed(result: Any) -> Sequence[Plugin]:
    if isinstance(result, (list, tuple)) and all(isinstance(item, Plugin) for item in result):
        return result
    raise TypeError(f"it returns a list of Plugin, not {result!r}")


def _check(plugin: Plugin, module: str) -> None:
    label = f"plugin {plugin.kind}.{plugin.name} ({module})"
    if plugin.api[0] != API_VERSION[0] or plugin.api[1] > API_VERSION[1]:
        theirs, ours = (".".join(map(str, version)) for version in (plugin.api, API_VERSION))
        raise PluginIncompatible(
            f"{label} was written for version {theirs} of the plugin API, and this pymicro-core has {ours}: "
            "install releases that fit each other"
        )
    for name in (plugin.name, *map(normalise, plugin.aliases)):
        if not re.fullmatch(_NAME, name):
            raise PluginFailed(f"{label}: the name {name!r} may have a-z, 0-9 and _ only")
    for kind in (plugin.kind, *plugin.requires):
        if kind not in KINDS:
            raise PluginFailed(f"{label}: there is no kind {kind!r}; the kinds are {', '.join(KINDS)}")
    if not re.fullmatch(_TARGET, plugin.target):
        raise PluginFailed(f"{label}: the target {plugin.target!r} is not of the form 'package.module:Class'")
    if not _is_struct(plugin.options):
        raise PluginFailed(f"{label}: options is a msgspec.Struct type, not {plugin.options!r}")
    try:
        describe_options(plugin.options)
    except ConfigurationError as error:
        raise PluginFailed(f"{label}: {error}") from error


def _is_struct(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, msgspec.Struct)
