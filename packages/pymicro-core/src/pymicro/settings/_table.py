"""The table of everything that can be set: one group per Struct, one option per field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from pymicro.client._options import ClientOptions
from pymicro.errors import InvalidOption
from pymicro.plugins import TLS, Limits, Plugin
from pymicro.plugins._kinds import KINDS, Kind
from pymicro.plugins._options import Option, describe_options
from pymicro.plugins.toolkit import option
from pymicro.server._options import ServerOptions

#: Short keywords, and the flags that they stand for.
SHORT: Final = {"name": "server_name", "version": "server_version", "metadata": "server_metadata"}

#: The kinds of which each service has one, and further named ones.
CHOSEN: Final = tuple(kind for kind in KINDS.values() if kind.cardinality == "one")


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is logged. The levels are Go Micro's.

    Attributes:
        level: the lowest level that is logged; `trace` is `debug` here.
    """

    level: Annotated[
        Literal["trace", "debug", "info", "warn", "warning", "error", "fatal"], option("Lowest level that is logged.")
    ] = "info"


class Group(msgspec.Struct, frozen=True):
    """The options of one Struct.

    Attributes:
        title: stands above them in help and reference.
        struct: what they become.
        options: in the order of the fields.
    """

    title: str
    struct: type[Any]
    options: tuple[Option, ...]


def core_groups() -> dict[str, Group]:
    """The service's own options, by the attribute of `Settings` that they become."""
    return {
        "server": _group("Server", ServerOptions, "server_"),
        "client": _group("Client", ClientOptions, "client_"),
        "limits": _group("Limits", Limits, ""),
        "tls": _group("TLS", TLS, "tls_"),
        "log": _group("Log", LogOptions, "log_"),
    }


def user_group(struct: type[Any]) -> Group:
    """A program's own flags. They have environment variables only where they name them."""
    return Group("This program", struct, describe_options(struct, environment=False))


def plugin_group(plugin: Plugin) -> Group:
    """The options of one plugin."""
    prefix = f"{plugin.kind}_{plugin.name}_"
    return _group(f"{plugin.kind.capitalize()} {plugin.name}", plugin.options, prefix)


def kind_options() -> dict[str, Option]:
    """The flags that choose implementations, and give their addresses, by name."""
    choosers = [_kind_option(kind) for kind in CHOSEN]
    addresses = [_address_option(kind) for kind in CHOSEN if kind.addressed]
    return {option.flag: option for option in (*choosers, *addresses)}


def index(groups: Iterable[Group]) -> dict[str, Option]:
    """Every option by its flag, those of `kind_options` too.

    Raises:
        InvalidOption: two options have one flag.
    """
    table = kind_options()
    owners = dict.fromkeys(table, "the choice of plugins")
    for group in groups:
        for item in group.options:
            if item.flag in table:
                raise InvalidOption(
                    f"--{item.flag} would be of both {owners[item.flag]} and {group.title} "
                    f"({group.struct.__qualname__}.{item.field}): rename one, or give it another flag="
                )
            table[item.flag], owners[item.flag] = item, group.title
    return table


def keyword_names(table: Mapping[str, Option]) -> Sequence[str]:
    """The keywords that a Service takes."""
    return [*table, *SHORT, *(kind.plural for kind in CHOSEN)]


def _group(title: str, struct: type[Any], prefix: str) -> Group:
    return Group(title, struct, describe_options(struct, prefix))


def _kind_option(kind: Kind) -> Option:
    auto = f"auto is {kind.preferred} if installed, else {kind.fallback}" if kind.preferred else ""
    return _make(kind.name, str, " ".join(filter(None, (kind.help, auto and f"{auto}."))), "auto", called="name")


def _address_option(kind: Kind) -> Option:
    return _make(f"{kind.name}_address", tuple[str, ...], f"Addresses that the {kind.name} talks to.", ())


def _make(flag: str, type: Any, help: str, default: Any, called: str = "") -> Option:
    return Option(
        field=flag,
        flag=flag,
        env=f"MICRO_{flag.upper()}",
        help=help,
        unit="",
        secret=False,
        required=False,
        default=default,
        type=type,
        optional=False,
        called=called,
    )
