"""The table of what is weighed apart from calls: start, memory, instructions."""

from __future__ import annotations

from figures import Rounds, spread, table

_MIB = 1 / (1 << 20)
#: Name, heading, and what the stored figure is multiplied by.
FIGURES = (
    ("import", "import, ms", 1e3),
    ("import_cpu", "import, CPU ms", 1e3),
    ("rss", "idle service, RSS MiB", _MIB),
    ("private", "of that private, MiB", _MIB),
    ("start", "start to first reply, ms", 1e3),
    ("found", "the same, found over mDNS, ms", 1e3),
    ("connection", "idle connection, bytes of the server", 1.0),
    ("growth_server", "growth of the server, MiB", _MIB),
    ("growth_client", "growth of the client, MiB", _MIB),
    ("instructions_client", "client, kinstr a call", 1e-3),
    ("instructions_server", "server, kinstr a call", 1e-3),
)


def weights(rounds: Rounds) -> list[str]:
    """One line for each figure, one column for each peer; empty when nothing was weighed."""
    peers = rounds.weighed()
    if not peers:
        return []
    lines = (
        [heading, *(spread([*rounds.weights(name, peer).values()], unit) for peer in peers)]
        for name, heading, unit in FIGURES
        if any(rounds.weights(name, peer) for peer in peers)
    )
    return ["### Start, memory, instructions\n", *table(["what", *(f"`{peer}`" for peer in peers)], lines)]
