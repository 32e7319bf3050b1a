"""The service that was recorded, in Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue

from pymicro import context, endpoint, errors


@dataclass
class Req:
    name: str = ""
    n: int = 0


@dataclass
class Rsp:
    msg: str = ""


class Seen(NamedTuple):
    """What a handler was called with."""

    body: Any
    headers: dict[str, str]


class Greeter:
    """The handler of the recorded Go server."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def see(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in context().headers.items()}
        self.seen.append(Seen(body, headers))

    async def hello(self, request: Req) -> Rsp:
        self.see(request)
        return Rsp(f"Hello {request.name}")

    @endpoint(name="PB")
    async def pb(self, request: StringValue) -> StringValue:
        self.see(request)
        return StringValue(value=request.value and f"pb:{request.value}")

    async def raw(self, request: bytes) -> bytes:
        self.see(request)
        return b"raw:" + request

    async def nothing(self, request: Req) -> None:
        self.see(request)

    async def fail(self, request: Req) -> Rsp:
        self.see(request)
        raise errors.BadRequest("bad <thing>\nline2", "go.micro.test")

    async def fail_uni(self, request: Req) -> Rsp:
        self.see(request)
        raise errors.NotFound('no such ключ é "q" & \t \u2028', "svc.id")

    async def fail_plain(self, request: Req) -> Rsp:
        self.see(request)
        raise RuntimeError("plain boom")

    async def panic(self, request: Req) -> Rsp:
        self.see(request)
        raise AssertionError("a nil pointer")

    async def on_event(self, event: Req) -> None:
        self.see(event)
        if event.name == "fail":
            raise RuntimeError("handler failed")


class Streamer:
    """The other one."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.ended = asyncio.Event()

    async def echo(self, requests: AsyncIterator[Req]) -> AsyncIterator[Rsp]:
        async for request in requests:
            self.requests.append(request.name)
            if request.name == "done":
                return
            if request.name == "fail":
                raise errors.BadRequest("midstream", "stream")
            yield Rsp(f"echo {request.name}")
        self.ended.set()


class Go(NamedTuple):
    """A running service with the handlers of the recorded one."""

    address: str
    greeter: Greeter
    streamer: Streamer
