"""What pymicro's plugins on NATS share: options, and one connection that is made again when it is lost.

Importing it imports no driver; `open_link` does. Public for the plugins of this project only.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING

from pymicro.plugins import Build
from pymicro_nats._options import NatsOptions
from pymicro_nats._subjects import check_subject

if TYPE_CHECKING:
    from pymicro_nats.connection import Link

__all__ = ["NatsOptions", "check_subject", "open_link"]


async def open_link(options: NatsOptions, build: Build) -> Link:
    """The connection of one component. It connects when it is first used.

    Raises:
        ConfigurationError: addresses, certificates or files with credentials are of no use.
    """
    # The driver takes a while to import, and calls may be in flight in this event loop.
    await asyncio.to_thread(importlib.import_module, "pymicro_nats.connection")
    from pymicro_nats.connection import Link

    return Link(options, build)
