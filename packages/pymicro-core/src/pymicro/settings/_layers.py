"""The layers that a value can come from, weakest first: keywords, environment, command line, overrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pymicro.errors import InvalidOption
from pymicro.plugins._options import Option, hide_passwords
from pymicro.settings._argv import CommandLine
from pymicro.settings._table import SHORT


class Given(msgspec.Struct, frozen=True):
    """What one layer says about one option.

    Attributes:
        values: as they were written; several where a flag was repeated.
        source: where, for people: `flag --registry`.
    """

    values: Sequence[Any]
    source: str


#: Says what it knows about an option; None for nothing.
Layer = Callable[[Option], Given | None]


def keyword_layer(values: Mapping[str, Any], word: str) -> Layer:
    """Python values by flag name, or by one of the short names.

    Args:
        values: the keywords.
        word: what they are called in sources, such as `keyword`.
    """

    def look(option: Option) -> Given | None:
        names = [option.flag, *(short for short, flag in SHORT.items() if flag == option.flag)]
        given = [name for name in names if name in values]
        if len(given) > 1:
            raise InvalidOption(f"{' and '.join(given)} are one option: give one of them")
        return Given([values[given[0]]], f"{word} {given[0]}") if given else None

    return look


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Environment variables. An empty one counts as not set, as with go-micro."""

    def look(option: Option) -> Given | None:
        text = environ.get(option.env, "") if option.env else ""
        return Given([text], f"environment {option.env}") if text else None

    return look


def flag_layer(line: CommandLine) -> Layer:
    """Flags."""

    def look(option: Option) -> Given | None:
        texts = line.values.get(option.flag)
        return Given(texts, f"flag --{option.flag}") if texts else None

    return look


def settle(option: Option, layers: Sequence[Layer]) -> tuple[Any, str] | None:
    """The value of an option and where it came from; None when no layer has it.

    The strongest layer wins. Maps are merged key by key.

    Raises:
        InvalidOption: a value does not fit.
    """
    given = [found for layer in layers if (found := layer(option)) is not None]
    if not given:
        return None
    if not option.is_map:
        return _read(option, given[-1]), given[-1].source
    merged: dict[str, Any] = {}
    for item in given:
        merged.update(_read(option, item) or {})
    return merged, ", ".join(item.source for item in given)


def _read(option: Option, given: Given) -> Any:
    several = len(given.values) > 1 and (option.is_list or option.is_map)
    return read_one(option, ",".join(given.values) if several else given.values[-1], given.source)


def read_one(option: Option, value: Any, source: str) -> Any:
    """The value of an option from one text or Python value.

    Raises:
        InvalidOption: it does not fit.
    """
    try:
        return option.read(value)
    except ValueError:
        got = "this value" if option.secret else hide_passwords(repr(value))
    # Outside the handler: the cause would show a secret.
    raise InvalidOption(f"{source}: expected {option.expected}; {got} does not fit")
