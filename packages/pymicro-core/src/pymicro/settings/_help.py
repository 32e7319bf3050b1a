"""The text of `--help`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from pymicro.plugins._host import HOST
from pymicro.plugins._options import Option
from pymicro.settings._choices import Choice
from pymicro.settings._table import CHOSEN, Group

_WIDTH: Final = 100
_INTRO: Final = (
    "Each flag is also an environment variable, and a keyword of Service(...). A flag wins over the environment, "
    "the environment over keywords. Dashes may stand for underscores: --registry-address. "
    "Durations are seconds or like 1m30s, sizes bytes or like 4MiB."
)


def help_text(kinds: Mapping[str, Option], groups: Sequence[Group], choices: Sequence[Choice]) -> str:
    """Every flag with type, default, environment variable and meaning, at most 100 columns wide."""
    parts = [textwrap.fill(_INTRO, _WIDTH), "Plugins\n" + "\n".join(map(_entry, kinds.values()))]
    parts.append(_chosen(choices))
    parts += [group.title + "\n" + "\n".join(map(_entry, group.options)) for group in groups if group.options]
    return "\n\n".join(parts) + "\n"


def _chosen(choices: Sequence[Choice]) -> str:
    lines = [
        f"{kind.name}: {', '.join(_now(choice) for choice in choices if choice.kind == kind.name)}; "
        f"there are {', '.join(HOST.names(kind.name))}"
        for kind in CHOSEN
    ]
    return "Chosen now\n" + "\n".join(_indented(line, 2, 6) for line in lines)


def _indented(text: str, first: int, others: int) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=" " * first, subsequent_indent=" " * others)


def _now(choice: Choice) -> str:
    name = f"{choice.instance}:{choice.name}" if choice.instance else choice.name
    return f"{name} ({choice.source})"


def _entry(option: Option) -> str:
    value = "" if option.is_switch else f"=<{option.type_text}>"
    default = "Required." if option.required else option.default_text and f"Default {option.default_text}."
    facts = [option.help, option.unit_text, default, option.env and f"${option.env}"]
    text = _indented(" ".join(filter(None, facts)), 8, 8)
    return f"  --{option.flag}{value}\n{text}"
