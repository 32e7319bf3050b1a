"""The reference page of flags and environment variables, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pymicro.plugins import Plugin
from pymicro.plugins._host import HOST
from pymicro.plugins._kinds import KINDS
from pymicro.plugins._official import OFFICIAL
from pymicro.plugins._options import Option
from pymicro.settings._table import core_groups, kind_options, plugin_group

_INTRO: Final = """\
# Flags and environment variables

Each option is a flag, an environment variable and a keyword of `Service(...)`, by the same name. A flag wins over the
environment, the environment over keywords, and `service.init(...)` over all of them. In flags, dashes may stand for
underscores. Durations are seconds (`30`) or like `1m30s`; sizes are bytes or like `64k` and `4MiB`. Lists and
`key=value` pairs are separated by commas, and their flags may be repeated. A variable that is set and empty counts as
not set.

This page is generated from the options of the core and of the installed official plugins.
"""


def reference_page() -> str:
    """The page, for the core and for the installed plugins of the project's own packages."""
    parts = [_INTRO, _section("Plugins", kind_options().values())]
    parts += [_section(group.title, group.options) for group in core_groups().values()]
    parts += [_section(group.title, group.options) for plugin in _ours() if (group := plugin_group(plugin)).options]
    return "\n".join(parts)


def _ours() -> list[Plugin]:
    found = [HOST.find(kind, name) for kind in KINDS for name in HOST.names(kind)]
    return [plugin for plugin in found if _package(plugin) in _packages(plugin.kind)]


def _package(plugin: Plugin) -> str:
    return plugin.target.partition(":")[0].partition(".")[0]


def _packages(kind: str) -> Sequence[str]:
    return ["pymicro", *(f"pymicro_{kind}_{name}" for name in OFFICIAL.get(kind, ()))]


def _section(title: str, options: Iterable[Option]) -> str:
    head = f"## {title}\n\n| Flag | Environment | Type | Default | Meaning |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(map(_row, options))


def _row(option: Option) -> str:
    meaning = " ".join(filter(None, (option.help, option.unit_text)))
    default = "required" if option.required else option.default_text and f"`{option.default_text}`"
    cells = f"`--{option.flag}`", option.env and f"`{option.env}`", option.type_text, default, meaning
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
