"""The command line: `--flag=value`, `--flag value`, `--switch`, `--` and `--help`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from pymicro.errors import InvalidOption, PymicroError
from pymicro.plugins._options import Option


class HelpRequested(PymicroError):
    """The command line asks for help. Show it and end; nothing was opened.

    Attributes:
        text: the help.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class CommandLine(msgspec.Struct, frozen=True):
    """What stood there.

    Attributes:
        values: the texts given to each flag, in order, by its name in the table.
        arguments: what stood behind `--`.
        help: whether help was asked for.
    """

    values: dict[str, list[str]]
    arguments: tuple[str, ...] = ()
    help: bool = False


def parse(argv: Sequence[str], table: Mapping[str, Option], advise: Callable[[str], str] | None = None) -> CommandLine:
    """Read a command line.

    Args:
        argv: without the program's name.
        table: the flags that are known, by name.
        advise: says more about an unknown flag, as a sentence after a space, or nothing; None passes over what is
            unknown.

    Raises:
        InvalidOption: an unknown flag, one without its value, or a loose argument.
    """
    values: dict[str, list[str]] = {}
    help = False
    rest = deque(argv)
    while rest and (token := rest.popleft()) != "--":
        if token in ("-h", "--help"):
            help = True
            continue
        name, _, text = token.removeprefix("--").partition("=")
        option = table.get(flag_name(name)) if token.startswith("--") else None
        if option is not None:
            values.setdefault(option.flag, []).append(text if "=" in token else _value(option, rest))
        elif advise is not None:
            raise InvalidOption(_unknown(token, advise))
    return CommandLine(values, tuple(rest), help)


def flag_name(name: str) -> str:
    """A flag's name in the table: people may write dashes."""
    return name.replace("-", "_")


def _value(option: Option, rest: deque[str]) -> str:
    if option.is_switch:
        return "true"
    if not rest or rest[0].startswith("--"):
        raise InvalidOption(
            f"--{option.flag} needs a value: {option.expected} (one that starts with -- is written --{option.flag}=...)"
        )
    return rest.popleft()


def _unknown(token: str, advise: Callable[[str], str]) -> str:
    if not token.startswith("-"):
        return f"unexpected argument {token!r}: flags are written --flag=value, and arguments of your own follow --"
    flag = token.partition("=")[0]
    return f"unknown flag {flag}.{advise(flag.lstrip('-'))} See --help"
