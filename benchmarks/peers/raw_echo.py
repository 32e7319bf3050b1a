"""The limit of a connection for each call in flight: bare frames on the event loop."""

from __future__ import annotations

from peers import About
from peers._frames import pooled as client
from peers._frames import serve

__all__ = ["ABOUT", "client", "serve"]

ABOUT = About(
    says="limit: length-prefixed frames on the bare event loop, a connection for each call in flight",
    distributions=("msgspec",),
)
