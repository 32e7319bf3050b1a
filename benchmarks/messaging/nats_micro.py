"""nats-py's micro service; its clients are those of `raw_nats`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats import micro

from messaging import raw_nats

CALLING = raw_nats.CALLING
caller = raw_nats.caller


@asynccontextmanager
async def server(backend: str, address: str, topic: str) -> AsyncIterator[str]:
    """See `Calling`."""
    connection = await nats.connect(address)

    async def answer(request: Any) -> None:
        await request.respond(request.data)

    try:
        service = await micro.add_service(connection, name="benchmark", version="1.0.0")
        await service.add_endpoint(name="echo", subject=topic, handler=answer)
        await connection.flush()
        yield topic
        await service.stop()
    finally:
        await connection.close()
