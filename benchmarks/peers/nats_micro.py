"""nats-py's micro service: requests through a NATS server, hellos as JSON, bytes as they are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats import micro

from peers import About
from peers._messages import HelloRequest, HelloResponse, decode_request, decode_response, encode

ABOUT = About(
    says="nats-py's micro service, through a NATS server; hellos as JSON by msgspec, bytes as they are",
    distributions=("nats-py", "msgspec"),
    programs=("nats-server",),
)


async def serve(ready: Callable[[str], None]) -> None:
    """See `Peer`."""
    connection = await nats.connect(os.environ["NATS_URL"])
    service = await micro.add_service(connection, name="greeter", version="1.0.0")
    await service.add_endpoint(name="hello", handler=_hello)
    await service.add_endpoint(name="echo", handler=_echo)
    await connection.flush()
    ready(os.environ["NATS_URL"])
    try:
        await asyncio.Event().wait()
    finally:
        await service.stop()
        await connection.close()


async def _hello(request: Any) -> None:
    await request.respond(encode(HelloResponse(f"Hello {decode_request(request.data).name}")))


async def _echo(request: Any) -> None:
    await request.respond(request.data)


class Greeter:
    """See `peers.Client`."""

    def __init__(self, connection: Any) -> None:
        self._request = connection.request

    async def hello(self, name: str) -> str:
        """See `peers.Client`."""
        return decode_response((await self._request("hello", encode(HelloRequest(name)), timeout=30)).data).greeting

    async def echo(self, data: bytes) -> bytes:
        """See `peers.Client`."""
        answer: bytes = (await self._request("echo", data, timeout=30)).data
        return answer


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Greeter]:
    """See `Peer`."""
    connection = await nats.connect(address)
    try:
        yield Greeter(connection)
    finally:
        await connection.close()
