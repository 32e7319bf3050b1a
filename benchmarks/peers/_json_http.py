"""aiohttp's client with JSON bodies, for the peers that are web servers. Bytes are base64 in them, as in any JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from peers._messages import Blob, HelloRequest, decode_blob, decode_response, encode

_JSON = {"Content-Type": "application/json"}


class JsonClient:
    """See `peers.Client`."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._hello, self._echo = f"http://{address}/hello", f"http://{address}/echo"

    async def hello(self, name: str) -> str:
        """See `peers.Client`."""
        return decode_response(await self._post(self._hello, encode(HelloRequest(name)))).greeting

    async def echo(self, data: bytes) -> bytes:
        """See `peers.Client`."""
        return decode_blob(await self._post(self._echo, encode(Blob(data)))).data

    async def _post(self, url: str, body: bytes) -> bytes:
        async with self._session.post(url, data=body, headers=_JSON) as response:
            response.raise_for_status()
            content: bytes = await response.read()
            return content


@asynccontextmanager
async def client(address: str) -> AsyncIterator[JsonClient]:
    """See `Peer`. The limit of 100 connections is lifted: with 256 calls in flight the rest would wait for them."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield JsonClient(session, address)
