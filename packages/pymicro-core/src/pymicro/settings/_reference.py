"""The reference of flags and environment variables, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
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

`--broker=kafka --broker=alerts:nats` adds a second broker called `alerts`, and `--broker_address=alerts=host:4222` says
where it is; the same holds for the other kinds. Options of a plugin hold for all its instances.

This page is generated from the options of the core and of the official plugins that are installed.
"""
_HEAD: Final = "| flag | environment | type | default | meaning |\n| --- | --- | --- | --- | --- |\n"


def option_tables() -> dict[str, str]:
    """The table of options of each plugin that has some, by `<kind>.<name>`.

    Of installed plugins only those of the project's own packages are in it.
    """
    return {
        f"{plugin.kind}.{plugin.name}": _table(group.options)
        for plugin in _ours()
        if (group := plugin_group(plugin)).options
    }


def reference_page() -> str:
    """The whole page. The tables of plugins stand between the comments that mark them in any page."""
    parts = [_INTRO, f"## Plugins\n\n{_table(kind_options().values())}"]
    parts += [f"## {group.title}\n\n{_table(group.options)}" for group in core_groups().values()]
    parts += [
        f"## {name}\n\n<!-- options of {name} -->\n{table}<!-- end of options -->\n"
        for name, table in option_tables().items()
    ]
    return "\n".join(parts)


def _ours() -> list[Plugin]:
    found = [HOST.find(kind, name) for kind in KINDS for name in HOST.names(kind)]
    return [plugin for plugin in found if plugin.target.partition(".")[0] in _packages(plugin.kind)]


def _packages(kind: str) -> set[str]:
    return {"pymicro", *(f"pymicro_{kind}_{name}" for name in OFFICIAL.get(kind, ()))}


def _table(options: Iterable[Option]) -> str:
    return _HEAD + "".join(map(_row, options))


def _row(option: Option) -> str:
    default = "required" if option.required else option.default_text and f"`{option.default_text}`"
    meaning = " ".join(filter(None, (option.help, option.unit_text)))
    cells = f"`--{option.flag}`", option.env and f"`{option.env}`", option.type_text, default, meaning
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"
