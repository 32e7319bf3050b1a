"""Which implementation of each kind a service uses, and what it talks to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from pymicro.errors import ConfigurationError, InvalidOption
from pymicro.plugins import Plugin
from pymicro.plugins._host import HOST
from pymicro.plugins._installed import normalise
from pymicro.plugins._kinds import Kind
from pymicro.plugins._official import OFFICIAL
from pymicro.plugins._options import Option
from pymicro.plugins.toolkit import Component
from pymicro.settings._layers import Given, Layer, read_one
from pymicro.settings._table import CHOSEN

AUTO: Final = "auto"

_INSTANCE: Final = re.compile(r"[a-z0-9_]+")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One component of a service, before it is built.

    Attributes:
        kind: its contract.
        instance: the name of a further one of its kind; empty for the default one.
        plugin: what to load; None when the program gave a component or factory.
        given: that component or `factory(build)`; None otherwise.
        options: the plugin's options; None for a given component.
        addresses: what it talks to; empty for the plugin's own default.
        source: where the choice came from, for people.
        optional: whether to log it and go on without it when it cannot be loaded: an installed codec that nobody
            asked for.
    """

    kind: str
    instance: str = ""
    plugin: Plugin | None = None
    given: Any = None
    options: Any = None
    addresses: tuple[str, ...] = ()
    source: str = ""
    optional: bool = False

    @property
    def label(self) -> str:
        """`broker`, or `broker.alerts` for a named one."""
        return f"{self.kind}.{self.instance}" if self.instance else self.kind

    @property
    def name(self) -> str:
        """The plugin's name, or the type of what was given."""
        if self.plugin is not None:
            return self.plugin.name
        return str(getattr(self.given, "__qualname__", type(self.given).__qualname__))


class Mentions(msgspec.Struct, frozen=True):
    """What the layers say about one kind.

    Attributes:
        chosen: by instance, the strongest statement and its source.
        names: every plugin that some layer names, chosen or not, and the preferred one.
    """

    chosen: dict[str, tuple[Any, str]]
    names: frozenset[str]


def mentions(kind: Kind, option: Option, layers: Sequence[Layer]) -> Mentions:
    """Collect what the layers, weakest first, say about a kind.

    Args:
        kind: the kind.
        option: the one that chooses its implementation.
        layers: where to look.

    Raises:
        InvalidOption: a statement makes no sense.
    """
    chosen: dict[str, tuple[Any, str]] = {"": (AUTO, "default")}
    names = {kind.preferred, kind.fallback}
    several = msgspec.structs.replace(option, flag=kind.plural, env="")
    for layer in layers:
        for instance, value, source in (*_single(layer(option)), *_several(layer(several))):
            if not _INSTANCE.fullmatch(instance or "_"):
                raise InvalidOption(f"{source}: the name {instance!r} of a {kind.name} may have a-z, 0-9 and _ only")
            chosen[instance] = _checked(kind.name, value, source), source
            if isinstance(value, str):
                names.add(normalise(value))
    return Mentions(chosen, frozenset(names))


def mentioned_plugin(keyword: str, said: Mapping[str, Mentions]) -> bool:
    """Whether a keyword is an option of a plugin that some layer names, though another was chosen."""
    return any(keyword.startswith(f"{kind}_{name}_") for kind, of in said.items() for name in of.names if name)


def unchosen_plugin(flag: str) -> str:
    """`" It is an option of ..."` where a flag or keyword is of a plugin that nobody chose; otherwise nothing."""
    for kind in CHOSEN:
        for name in (*HOST.names(kind.name), *OFFICIAL.get(kind.name, ())):
            if flag.startswith(f"{kind.name}_{name}_"):
                return f" It is an option of the {kind.name} plugin {name!r}, which is not chosen."
    return ""


def choose(kind: Kind, instance: str, value: Any, source: str) -> Choice:
    """Turn a statement into a choice, without options and addresses.

    Raises:
        UnknownPlugin, PluginConflict, PluginFailed, PluginIncompatible: the name means nothing usable.
    """
    if isinstance(value, str) and value == AUTO:
        plugin, why = _default(kind)
        return Choice(kind=kind.name, instance=instance, plugin=plugin, source=f"{source}: {why}")
    if isinstance(value, str):
        plugin = HOST.find(kind.name, value, source=source)
        return Choice(kind=kind.name, instance=instance, plugin=plugin, source=source)
    return Choice(kind=kind.name, instance=instance, given=value, source=source)


def addresses(option: Option, instances: Sequence[str], layers: Sequence[Layer]) -> dict[str, tuple[Any, str]]:
    """The addresses of each instance that was given some, and their source; the strongest layer wins.

    Raises:
        InvalidOption: a keyword is of a wrong type.
    """
    found: dict[str, tuple[Any, str]] = {}
    for layer in layers:
        given = layer(option)
        if given is None:
            continue
        lists: dict[str, list[str]] = {}
        for value in (value for value in given.values if value is not None):
            for instance, items in _by_instance(option, value, instances, given.source):
                lists.setdefault(instance, []).extend(items)
        found.update({instance: (tuple(items), given.source) for instance, items in lists.items()})
    return found


def _single(given: Given | None) -> list[tuple[str, Any, str]]:
    if given is None:
        return []
    parts = [part for value in given.values for part in (_split(value) if isinstance(value, str) else [("", value)])]
    return [(instance, value, given.source) for instance, value in parts if value is not None]


def _split(text: str) -> list[tuple[str, str]]:
    """Instances and names in `kafka,alerts:nats`."""
    named = [part.strip().rpartition(":") for part in text.split(",") if part.strip()]
    return [(instance, name or AUTO) for instance, _, name in named] or [("", AUTO)]


def _several(given: Given | None) -> list[tuple[str, Any, str]]:
    if given is None or given.values[0] is None:
        return []
    value = given.values[0]
    if not isinstance(value, Mapping):
        raise InvalidOption(f"{given.source}: expected a dict such as {{'alerts': 'memory'}}, not {value!r}")
    return [(str(name), item, given.source) for name, item in value.items()]


def _checked(kind: str, value: Any, source: str) -> Any:
    if isinstance(value, type) and issubclass(value, Component):
        raise InvalidOption(
            f"{source}: {value.__qualname__} is a class: give an instance, or a factory such as "
            f"lambda build: {value.__qualname__}(options, build)"
        )
    if not (isinstance(value, (str, Component)) or callable(value)):
        raise InvalidOption(f"{source}: expected the name of a {kind} plugin, a component or a factory, not {value!r}")
    return value


def _default(kind: Kind) -> tuple[Plugin, str]:
    try:
        return HOST.default(kind.name)
    except ConfigurationError as error:
        text = f"{error} (taken by default, because it is installed; to do without it: --{kind.name}={kind.fallback})"
        raise type(error)(text) from error.__cause__


def _by_instance(option: Option, value: Any, instances: Sequence[str], source: str) -> list[tuple[str, Sequence[str]]]:
    if isinstance(value, Mapping):
        unknown = [name for name in value if name not in instances]
        if unknown:
            raise InvalidOption(f"{source}: there is no instance {unknown[0]!r}")
        return [(name, read_one(option, items, source)) for name, items in value.items()]
    pairs = [(*item.partition("="), item) for item in read_one(option, value, source)]
    return [(name, [rest]) if equals and name in instances else ("", [item]) for name, equals, rest, item in pairs]
