"""The plugin host: which plugins there are, and which one a name means.

It holds descriptions, never instances. Three sources, in the order of trust: the core's own hooks, modules that the
program imports and that call `enable`, and entry points of installed distributions. Of the last, names come from
metadata; a module is imported only when its plugin is chosen.

Hooks run and modules are imported outside the lock: another thread may hold an import lock while it waits for ours.
"""

from __future__ import annotations

import contextvars
import importlib
import logging
import sys
import threading
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, Final

import msgspec

from pymicro._internal import complaint
from pymicro._internal.logs import log
from pymicro.errors import ConfigurationError, PluginConflict, PluginFailed, PymicroError, UnknownPlugin
from pymicro.plugins._build import ServiceView
from pymicro.plugins._hooks import new_manager, read_module
from pymicro.plugins._installed import (
    Offer,
    installed_names,
    missing_requirements,
    normalise,
    offers,
    origin,
    rescan,
)
from pymicro.plugins._kinds import KINDS
from pymicro.plugins._official import OFFICIAL, install_hint
from pymicro.plugins._plugin import Plugin

logger = logging.getLogger("pymicro.plugins")

_by_host: contextvars.ContextVar[bool] = contextvars.ContextVar("pymicro_enabled_by_host", default=False)


class _Known(msgspec.Struct, frozen=True):
    plugin: Plugin
    module: str


class Found(msgspec.Struct, frozen=True):
    """A plugin of a kind that has many.

    Attributes:
        plugin: its description.
        asked: whether the core or the program wants it; otherwise it is merely installed, and one that cannot be
            loaded is to be left out.
    """

    plugin: Plugin
    asked: bool


class Host:
    """The table of descriptions. All methods may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._manager = new_manager()
        self._modules: dict[str, ModuleType] = {}
        self._wanted: set[str] = set()
        self._known: dict[tuple[str, str], _Known] = {}
        self._left_out: set[tuple[str, str]] = set()

    def enable(self, module: ModuleType | str) -> None:
        """See `enable`."""
        if isinstance(module, str):
            module = sys.modules.get(module) or importlib.import_module(module)
        self._register(module, wanted=not _by_host.get())

    def find(self, kind: str, name: str, *, source: str = "") -> Plugin:
        """The plugin of a name or alias. Imports its hook, not its target.

        Args:
            kind: one of `KINDS`.
            name: as a person wrote it.
            source: where the name was written, for error texts.

        Raises:
            UnknownPlugin, PluginConflict, PluginFailed, PluginIncompatible: see there.
        """
        self._load_builtin(kind)
        key = kind, normalise(name)
        known = self._known.get(key)
        offered = offers(*key)
        if known is None and not offered:
            rescan()
            offered = offers(*key)
        _refuse_conflict(key, known, offered)
        if known is None and offered:
            self._load_offer(offered[0])
            known = self._known.get(key)
        if known is None:
            raise UnknownPlugin(self._unknown(*key, source))
        return known.plugin

    def default(self, kind: str) -> tuple[Plugin, str]:
        """What `auto` means, and why: the name that go-micro prefers if it is there, else the core's own.

        Raises:
            PluginConflict, PluginFailed, PluginIncompatible: the preferred one is there and does not work.
        """
        info = KINDS[kind]
        self._load_builtin(kind)
        if info.preferred and ((kind, info.preferred) in self._known or offers(kind, info.preferred)):
            return self.find(kind, info.preferred), "installed"
        reason = f"{info.preferred} is not installed" if info.preferred else "built in"
        return self._known[kind, info.fallback].plugin, reason

    def all(self, kind: str) -> Sequence[Found]:
        """Every plugin of a kind that has many: those that the program enabled, the core's, those merely installed.

        One that is merely installed and broken is logged once and left out.

        Raises:
            PluginConflict: two distributions offer one name.
        """
        self._load_builtin(kind)
        for name in installed_names(kind):
            try:
                self.find(kind, name)
            except PluginConflict:
                raise
            except ConfigurationError as error:
                self._report_left_out(kind, name, error)
        own = f"pymicro.{kind}._plugin"
        with self._lock:
            known = {item.plugin.name: item for (of, _), item in sorted(self._known.items()) if of == kind}
            wanted = set(self._wanted)
        ordered = sorted(known.values(), key=lambda item: (item.module not in wanted, item.module != own))
        return [Found(item.plugin, item.module in {own, *wanted}) for item in ordered]

    def names(self, kind: str) -> list[str]:
        """The names of one kind that can be chosen, sorted. Imports no plugin."""
        self._load_builtin(kind)
        with self._lock:
            known = {item.plugin.name for (of, _), item in self._known.items() if of == kind}
        return sorted(known.union(installed_names(kind)))

    def configure(self, service: ServiceView, chosen: Iterable[Plugin]) -> None:
        """Let plugins add to a service: those in `chosen` and those that the program enabled by importing them.

        Raises:
            PluginFailed: a hook raised.
        """
        with self._lock:
            modules = dict(self._modules)
            names = self._wanted | {self._known[plugin.kind, plugin.name].module for plugin in chosen}
        for name in [name for name in modules if name in names]:
            others = [module for other, module in modules.items() if other != name]
            try:
                self._manager.subset_hook_caller("pymicro_configure", others)(service=service)
            except PymicroError:
                raise
            except Exception as error:
                raise PluginFailed(f"{origin(name)}: the hook pymicro_configure failed: {error}") from error

    def _register(self, module: ModuleType, *, wanted: bool) -> None:
        name = module.__name__
        if self._modules.get(name) is not module:
            plugins = read_module(module)
            with self._lock:
                if self._modules.get(name) is not module:
                    self._add(module, plugins)
        if wanted:
            with self._lock:
                self._wanted.add(name)

    def _add(self, module: ModuleType, plugins: Sequence[Plugin]) -> None:
        # A module of the same name was imported anew: it replaces its former self.
        known = {key: item for key, item in self._known.items() if item.module != module.__name__}
        for plugin in plugins:
            for name in (plugin.name, *map(normalise, plugin.aliases)):
                other = known.setdefault((plugin.kind, name), _Known(plugin, module.__name__))
                if other.plugin.target != plugin.target:
                    raise PluginConflict(
                        f"two plugins are called {plugin.kind}.{name}: one of {origin(other.module)} and one of "
                        f"{origin(module.__name__)}; import only one of them, or rename your own"
                    )
        former = self._modules.get(module.__name__)
        if former is not None:
            self._manager.unregister(former)
        self._manager.register(module, module.__name__)
        self._modules[module.__name__] = module
        self._known = known

    def _load_builtin(self, kind: str) -> None:
        self._register(importlib.import_module(f"pymicro.{kind}._plugin"), wanted=False)

    def _load_offer(self, offer: Offer) -> None:
        token = _by_host.set(True)
        try:
            module = importlib.import_module(offer.module)
        except ConfigurationError:
            raise
        except Exception as error:
            label = f"plugin {offer.kind}.{offer.name} of {offer.distribution}"
            raise PluginFailed(_import_failure(label, offer.module, error)) from error
        finally:
            _by_host.reset(token)
        self._register(module, wanted=False)
        if (offer.kind, offer.name) not in self._known:
            raise PluginFailed(
                f"{offer.distribution} offers {offer.kind}.{offer.name}, but its hook in {offer.module} describes "
                "no plugin of that name"
            )

    def _report_left_out(self, kind: str, name: str, error: Exception) -> None:
        with self._lock:
            new = (kind, name) not in self._left_out
            self._left_out.add((kind, name))
        if new:
            log(logger, logging.WARNING, "plugin left out", kind=kind, name=name, error=error)

    def _unknown(self, kind: str, name: str, source: str) -> str:
        import difflib

        available = self.names(kind)
        aliases = [alias for of, alias in self._known if of == kind]
        candidates = {*available, *aliases, *OFFICIAL.get(kind, ())}
        near = [word for word in difflib.get_close_matches(name.lower(), sorted(candidates), n=3) if word != name]
        wanting = [word for word in dict.fromkeys((name, *near)) if word not in available]
        hints = [hint for hint in (install_hint(kind, word) for word in wanting) if hint]
        parts = [
            f"There is no {kind} plugin {name!r}" + (f" ({source})." if source else "."),
            f"Did you mean {' or '.join(map(repr, near))}?" if near else "",
            f"Installed or enabled: {', '.join(available)}.",
            f"To install: {' or '.join(hints)}" if hints else "",
        ]
        return " ".join(part for part in parts if part)


HOST: Final = Host()


def enable(module: ModuleType | str) -> None:
    """Make the plugins of a module known in this process. Idempotent.

    Packages call it on import. A module of one's own needs no packaging: it has the hook, ends with
    `enable(__name__)`, and is imported.

    Args:
        module: the module that has the hooks, or its name.

    Raises:
        PluginConflict: another implementation has the same kind and name.
        PluginFailed, PluginIncompatible: the module's hooks are wrong.
    """
    try:
        HOST.enable(module)
    except ConfigurationError:
        complaint.install()  # this runs while modules are imported, before a service could have done it
        raise


def load(plugin: Plugin) -> Any:
    """Import what a plugin stands for, and return its class.

    Raises:
        PluginFailed: it cannot be imported; the cause is attached.
    """
    module, _, attribute = plugin.target.partition(":")
    label = f"plugin {plugin.kind}.{plugin.name}"
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise PluginFailed(_import_failure(label, plugin.target, error)) from error


def _import_failure(label: str, target: str, error: Exception) -> str:
    missing = missing_requirements(_package(target)) if isinstance(error, ModuleNotFoundError) else []
    hint = f"; it needs: pip install {' '.join(missing)}" if missing else ""
    return f"{label} cannot be imported from {target}: {type(error).__name__}: {error}{hint}"


def _refuse_conflict(key: tuple[str, str], known: _Known | None, offered: Sequence[Offer]) -> None:
    label = ".".join(key)
    if len(offered) > 1:
        who = " and ".join(sorted(offer.distribution for offer in offered))
        raise PluginConflict(f"two distributions offer {label}: {who}; uninstall one of them")
    if known and offered and _package(offered[0].module) != _package(known.module):
        raise PluginConflict(
            f"two plugins are called {label}: one of {origin(known.module)}, which is enabled, and one of "
            f"{offered[0].distribution}, which is installed; uninstall one, or rename your own"
        )


def _package(module: str) -> str:
    return module.partition(".")[0]
