"""The requests of a stream, as the handler iterates them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from pymicro.codec import Decode
from pymicro.errors import ConnectionFailed, Disconnected
from pymicro.message import Message
from pymicro.rpc import Interrupt, error_of, is_end
from pymicro.transport import Socket


class CallerGone(Disconnected):
    """The caller closed its connection while it was being served."""


class Inbound(AsyncIterator[Any]):
    """Decodes one message after another until the caller ends the stream.

    A caller that says EOS and closes its connection ended the stream in good order: the handler still gets all that
    was sent, and finishes. go-micro's clients do no other (`client/rpc_stream.go`). One that closes without EOS went
    away: the handler is cancelled. So is it when the caller said with EOS that it awaits something, as pymicro's do.

    Attributes:
        ended: whether the caller ended the stream.
        let_go: whether it awaits nothing any more, so that its leaving is none of the handler's business.
    """

    def __init__(self, socket: Socket, decode: Decode) -> None:
        self._socket = socket
        self._decode = decode
        self._rest: deque[Message] = deque()
        self._receiving = False
        self._gone: Interrupt | None = None
        self._collector: asyncio.Task[None] | None = None
        self.ended = False
        self.let_go = False

    async def first(self, *, takes: bool) -> Any:
        """The one request of an endpoint that takes no stream; a caller that sends none ended the stream early."""
        if not takes:
            self.ended = True
            return None
        try:
            return await anext(self)
        except StopAsyncIteration:
            return self._decode(b"")
        finally:
            self.ended = True  # what the handler waits for now is not the caller's next message
            if self._gone is not None:  # later, because the task that runs here cannot be cancelled at once
                asyncio.get_running_loop().call_soon(self._gone.fire, "disconnect")

    def __aiter__(self) -> Inbound:
        return self

    async def __anext__(self) -> Any:
        if self.ended:
            raise StopAsyncIteration
        message = await self._next()
        if is_end(message.headers):
            self.ended = True
            self.let_go = _lets_go(message)
            raise StopAsyncIteration
        error = error_of(message.headers)
        if error is not None:
            self.ended = True
            raise error
        return self._decode(message.body)

    async def _next(self) -> Message:
        if self._collector is not None:
            await asyncio.wait([self._collector])
        if self._rest:
            return self._rest.popleft()
        self._receiving = True
        try:
            return await self._socket.recv()
        except ConnectionFailed as error:
            raise CallerGone("the caller went away", self._socket.remote) from error
        finally:
            self._receiving = False
            self._look_ahead()

    def caller_gone(self, interrupt: Interrupt) -> None:
        """Find out whether the caller ended the stream before it went; if not, interrupt the handler.

        A handler that waits for the next message gets what there is first.
        """
        self._gone = interrupt
        self._look_ahead()

    def _look_ahead(self) -> None:
        if self._gone is not None and not self._receiving and self._collector is None:
            self._collector = asyncio.get_running_loop().create_task(self._collect(self._gone))

    async def _collect(self, interrupt: Interrupt) -> None:
        """Take what the socket still holds, which is bounded by `Limits.buffer`."""
        try:
            while not (self._rest and _lets_go(self._rest[-1])):
                self._rest.append(await self._socket.recv())
        except ConnectionFailed:
            interrupt.fire("disconnect")

    async def aclose(self) -> None:
        """End the task that may be collecting."""
        if self._collector is not None:
            self._collector.cancel()
            await asyncio.wait([self._collector])


def _lets_go(message: Message) -> bool:
    return is_end(message.headers) and not message.headers.lowered.get("micro-awaits")
