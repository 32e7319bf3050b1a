"""aiohttp on both sides, with JSON by msgspec."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from peers import About
from peers._json_http import client
from peers._messages import HelloResponse, decode_blob, decode_request, encode

__all__ = ["ABOUT", "client", "serve"]

ABOUT = About(
    says="aiohttp's server and client with JSON by msgspec, routes without validation",
    distributions=("aiohttp", "msgspec"),
)


async def _hello(request: web.Request) -> web.Response:
    asked = decode_request(await request.read())
    return web.Response(body=encode(HelloResponse(f"Hello {asked.name}")), content_type="application/json")


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=encode(decode_blob(await request.read())), content_type="application/json")


async def serve(ready: Callable[[str], None]) -> None:
    """See `Peer`."""
    application = web.Application()
    application.router.add_post("/hello", _hello)
    application.router.add_post("/echo", _echo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready(f"127.0.0.1:{runner.addresses[0][1]}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
