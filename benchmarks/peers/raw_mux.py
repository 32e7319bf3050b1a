"""The limit of many small calls on one connection: bare frames on the event loop.

Large bodies on one connection want more care than this takes, so there is no echo: `raw_echo` is the limit of that.
"""

from __future__ import annotations

from peers import About
from peers._frames import multiplexed as client
from peers._frames import serve

__all__ = ["ABOUT", "client", "serve"]

ABOUT = About(
    says="limit: the same frames, all calls on one connection, 32 written at a time",
    distributions=("msgspec",),
    shapes=("hello", "stream"),
)
