"""pymicro over Go Micro's HTTP, as it speaks with Go peers: a connection for each call in flight."""

from __future__ import annotations

from functools import partial

from peers import About, _pymicro

ABOUT = About(
    says="pymicro as it speaks with Go peers: JSON over HTTP, a connection for each call in flight, nodes from mDNS",
    distributions=_pymicro.HTTP,
    shapes=("hello", "echo", "stream", "compute"),
    workers=True,
)
serve = partial(_pymicro.serve, False)
run = partial(_pymicro.run, False)
client = partial(_pymicro.client, False)
connections = partial(_pymicro.connections, False)
