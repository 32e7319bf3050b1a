"""Brings keywords, environment and command line together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from pymicro.client._options import ClientOptions
from pymicro.errors import InvalidOption
from pymicro.plugins import TLS, Limits, Plugin
from pymicro.plugins._host import HOST
from pymicro.plugins._options import Option
from pymicro.server._options import ServerOptions
from pymicro.settings._argv import HelpRequested, flag_name, parse
from pymicro.settings._choices import Choice, Mentions, addresses, choose, mentioned_plugin, mentions, unchosen_plugin
from pymicro.settings._help import help_text
from pymicro.settings._layers import Layer, environment_layer, flag_layer, keyword_layer, settle
from pymicro.settings._refusal import advice
from pymicro.settings._table import (
    CHOSEN,
    Group,
    core_groups,
    index,
    keyword_names,
    kind_options,
    plugin_group,
    user_group,
)

_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a service was told, checked.

    Attributes:
        server, client, limits, tls: the options of the service itself.
        log_level: as `logging.Logger.setLevel` takes it.
        flags: the program's own flags; None when it has none.
        choices: the implementation of each kind, by kind and instance; the instance `""` is always there.
        codecs: every codec; of two for one content type the first counts.
        arguments: what stood behind `--` on the command line.
        sources: where each value that was given came from, one line each, secrets masked.
    """

    server: ServerOptions
    client: ClientOptions
    limits: Limits
    tls: TLS
    log_level: str
    flags: Any
    choices: Mapping[tuple[str, str], Choice]
    codecs: Sequence[Choice]
    arguments: tuple[str, ...]
    sources: Sequence[str]

    def provenance(self) -> list[str]:
        """What was chosen and what was given, one line each with its source; secrets are masked."""
        return list(self.sources)

    def advice(self, error: BaseException) -> str:
        """Which backend refused, and the flags that say who asks it; empty for errors that are no refusal."""
        return advice(error, self.choices.values())

    @classmethod
    def resolve(
        cls,
        *,
        keywords: Mapping[str, Any],
        environ: Mapping[str, str],
        argv: Sequence[str] | None,
        overrides: Mapping[str, Any] | None = None,
        flags: type[Any] | None = None,
    ) -> Settings:
        """Read all sources. Each is stronger than the one before it: keywords, environment, command line, overrides.

        Imports the hooks of the plugins that are chosen, never the plugins themselves.

        Args:
            keywords: by the names of flags, or `name`, `version`, `metadata`; a kind takes a plugin's name, a
                component, or a factory that makes one from a `Build`; `brokers={"alerts": "nats"}` adds instances.
            environ: environment variables; those that mean nothing here are ignored.
            argv: the command line without the program's name; None when it is not to be read.
            overrides: as `keywords`.
            flags: a Struct whose `option(...)` fields are the program's own flags; None for none.

        Raises:
            HelpRequested: the command line has `--help`.
            InvalidOption: something is unknown or does not fit; the text names flag, variable or keyword.
            UnknownPlugin, PluginConflict, PluginFailed, PluginIncompatible: a plugin that was chosen.
        """
        return _Resolution(keywords, environ, argv or (), overrides or {}, flags).settings()


class _Resolution:
    """One run of `Settings.resolve`: first the kinds, then the options of what was chosen."""

    def __init__(
        self,
        keywords: Mapping[str, Any],
        environ: Mapping[str, str],
        argv: Sequence[str],
        overrides: Mapping[str, Any],
        flags: type[Any] | None,
    ) -> None:
        self._words = {"keyword": keywords, "init keyword": overrides}
        self._environ = environ
        self._kinds = kind_options()
        line = parse(argv, self._kinds)
        layers = self._layers(flag_layer(line))
        self._said = {kind.name: mentions(kind, self._kinds[kind.name], layers) for kind in CHOSEN}
        self._choices = [
            choose(kind, instance, value, source)
            for kind in CHOSEN
            for instance, (value, source) in self._said[kind.name].chosen.items()
        ]
        self._codecs = [
            Choice(kind="codec", plugin=found.plugin, source="default: installed", optional=not found.asked)
            for found in HOST.all("codec")
        ]
        self._core = core_groups()
        self._user = user_group(flags) if flags is not None else None
        self._plugins = {
            (plugin.kind, plugin.name): plugin_group(plugin) for plugin in _plugins((*self._choices, *self._codecs))
        }
        self._table = index(self._groups())
        if line.help:
            raise HelpRequested(help_text(self._kinds, self._groups(), self._choices))
        self._line = parse(argv, self._table, lambda flag: _advice(flag, list(self._table), "--"))
        self._last = self._layers(flag_layer(self._line))
        self._sources: list[str] = []

    def settings(self) -> Settings:
        """The result."""
        for word, values in self._words.items():
            _check_keywords(word, values, self._table, self._said)
        choices = self._addressed()
        self._sources += [self._codec_line()]
        core = {name: self._make(group) for name, group in self._core.items()}
        flags = self._make(self._user) if self._user is not None else None
        made = {key: self._make(group) for key, group in self._plugins.items()}
        return Settings(
            server=core["server"],
            client=core["client"],
            limits=core["limits"],
            tls=core["tls"],
            log_level=logging.getLevelName(_LEVELS[core["log"].level]),
            flags=flags,
            choices={(choice.kind, choice.instance): _with_options(choice, made) for choice in choices},
            codecs=[_with_options(choice, made) for choice in self._codecs],
            arguments=self._line.arguments,
            sources=self._sources,
        )

    def _layers(self, line: Layer) -> list[Layer]:
        first, last = (keyword_layer(values, word) for word, values in self._words.items())
        return [first, environment_layer(self._environ), line, last]

    def _groups(self) -> list[Group]:
        own = [self._user] if self._user is not None else []
        return [*own, *self._core.values(), *self._plugins.values()]

    def _addressed(self) -> list[Choice]:
        """The choices with their addresses."""
        result = []
        for kind in CHOSEN:
            option = self._kinds.get(f"{kind.name}_address")
            instances = list(self._said[kind.name].chosen)
            given = addresses(option, instances, self._last) if option is not None else {}
            for choice in (choice for choice in self._choices if choice.kind == kind.name):
                items, source = given.get(choice.instance, ((), ""))
                result.append(msgspec.structs.replace(choice, addresses=items))
                self._sources.append(f"{choice.label}={choice.name} ({choice.source})")
                if option is not None and items:
                    self._sources.append(f"{choice.label}_address={option.show(items)} ({source})")
        return result

    def _make(self, group: Group) -> Any:
        """The Struct of a group, and a line for each value that was given."""
        values = {}
        for option in group.options:
            settled = settle(option, self._last)
            if settled is not None:
                values[option.field], source = settled
                self._sources.append(f"{option.flag}={option.show(values[option.field])} ({source})")
            elif option.required:
                raise InvalidOption(f"--{option.flag} is required: {option.help} Give {option.expected}")
        try:
            return group.struct(**values)
        except (TypeError, ValueError) as error:
            raise InvalidOption(f"{group.title}: {error}") from error

    def _codec_line(self) -> str:
        names = ",".join(sorted(choice.name for choice in self._codecs))
        return f"codec={names} (default: installed)"


def _plugins(choices: Iterable[Choice]) -> list[Plugin]:
    return [choice.plugin for choice in choices if choice.plugin is not None]


def _with_options(choice: Choice, made: Mapping[tuple[str, str], Any]) -> Choice:
    if choice.plugin is None:
        return choice
    return msgspec.structs.replace(choice, options=made[choice.plugin.kind, choice.plugin.name])


def _check_keywords(
    word: str, values: Mapping[str, Any], table: Mapping[str, Option], said: Mapping[str, Mentions]
) -> None:
    known = keyword_names(table)
    for name in values:
        if name not in known and not mentioned_plugin(name, said):
            raise InvalidOption(f"unknown {word} {name}.{_advice(name, known)}")


def _advice(name: str, known: Sequence[str], prefix: str = "") -> str:
    """What may have been meant by an unknown flag or keyword."""
    import difflib

    name = flag_name(name.lower())
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    return unchosen_plugin(name) or (f" Did you mean {' or '.join(prefix + word for word in near)}?" if near else "")
