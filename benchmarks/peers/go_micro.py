"""Go Micro v5.8's own client and server: `go/`, built with the Go on the machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from peers import About, Shape
from programs import go_greeter

ABOUT = About(
    says="Go Micro's client and server in Go: JSON over its HTTP transport, the server's address known to the client",
    calls="program",
    programs=("go",),
)


async def serve(ready: Callable[[str], None]) -> None:
    """See `Peer`. This process becomes the program, so that its id and its core stay what they are."""
    greeter = str(await asyncio.to_thread(go_greeter))
    os.execv(greeter, [greeter, "serve"])


def command(address: str, shape: Shape) -> list[str]:
    """See `Peer`."""
    return [str(go_greeter()), "call", f"-address={address}", f"-shape={shape}"]
