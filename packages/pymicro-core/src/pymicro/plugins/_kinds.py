"""The contracts that have replaceable implementations."""

from __future__ import annotations

from typing import Final, Literal

import msgspec


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One contract, as far as choosing its implementation goes.

    Attributes:
        name: as in flags: `registry`.
        plural: the keyword for named instances: `registries`. Empty where there are none.
        cardinality: `one` (with further named instances) is chosen by name; of `many` all that are installed are used.
        preferred: what `auto` takes when it is installed, as go-micro does; empty for the fallback at once.
        fallback: what `auto` takes otherwise; it is part of the core.
        addressed: whether there is a flag for the address of what it talks to.
        help: what it does, for `--help`.
    """

    name: str
    plural: str = ""
    cardinality: Literal["one", "many"] = "one"
    preferred: str = ""
    fallback: str = "memory"
    addressed: bool = True
    help: str = ""


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(name="transport", plural="transports", preferred="http", help="How messages travel between services."),
        Kind(name="registry", plural="registries", preferred="mdns", help="Where services register and are found."),
        Kind(name="broker", plural="brokers", preferred="http", help="Where events are published."),
        Kind(
            name="selector",
            plural="selectors",
            fallback="registry",
            addressed=False,
            help="How the node of a call is chosen.",
        ),
        Kind(name="codec", cardinality="many", fallback="", addressed=False, help="How bodies are written."),
    )
}
