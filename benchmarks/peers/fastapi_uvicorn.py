"""FastAPI on uvicorn, called with aiohttp's client: httpx's, which many take, would be most of what is measured."""

from __future__ import annotations

import socket
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import fastapi
import uvicorn
from pydantic import BaseModel

from peers import About
from peers._json_http import client

__all__ = ["ABOUT", "client", "serve"]

ABOUT = About(
    says="FastAPI on uvicorn with httptools, models checked by pydantic, called with aiohttp's client (not httpx)",
    distributions=("fastapi", "uvicorn", "pydantic", "starlette", "httptools", "aiohttp"),
)


class HelloRequest(BaseModel):
    """A name."""

    name: str


class HelloResponse(BaseModel):
    """A greeting."""

    greeting: str


class Blob(BaseModel):
    """Bytes as base64."""

    data: str


async def _hello(request: HelloRequest) -> HelloResponse:
    return HelloResponse(greeting=f"Hello {request.name}")


async def _echo(blob: Blob) -> Blob:
    data = b64decode(blob.data)
    return Blob(data=b64encode(data).decode())


class _Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not checked here: see tool.mypy in pyproject.toml
    def __init__(self, config: Any, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


async def serve(ready: Callable[[str], None]) -> None:
    """See `Peer`."""
    application = fastapi.FastAPI()
    application.add_api_route("/hello", _hello, methods=["POST"], response_model=HelloResponse)
    application.add_api_route("/echo", _echo, methods=["POST"], response_model=Blob)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listening.getsockname()[1]
    config = uvicorn.Config(application, http="httptools", lifespan="off", log_level="warning", access_log=False)
    await _Server(config, lambda: ready(f"127.0.0.1:{port}")).serve(sockets=[listening])
