"""pymicro as it comes between pymicro peers: many calls on one connection."""

from __future__ import annotations

from functools import partial

from peers import About, _pymicro

ABOUT = About(
    says="pymicro as it comes between its own: JSON, many calls on one connection, nodes from mDNS",
    distributions=_pymicro.HTTP,
    shapes=("hello", "echo", "stream", "compute"),
    workers=True,
)
serve = partial(_pymicro.serve, True)
run = partial(_pymicro.run, True)
client = partial(_pymicro.client, True)
connections = partial(_pymicro.connections, True)
