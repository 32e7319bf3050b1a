"""The client's side of one stream: requests go out while responses come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pymicro import errors
from pymicro.client._method import Method
from pymicro.clock import Clock
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.rpc import Deadlines, Interrupt, error_of, is_end, names
from pymicro.selector import Outcome, Pick
from pymicro.transport import Socket

_END = ((names.ERROR, names.END_OF_STREAM), (names.AWAITS, "yes"))


class Outbound(AsyncIterator[Any]):
    """Iterates the responses of a stream that has a socket for itself.

    A task of its own sends the requests when they are a stream. `aclose` ends it and closes the socket, which the
    server takes as cancellation unless the stream is over.
    """

    def __init__(
        self,
        socket: Socket,
        method: Method,
        headers: Headers,
        pick: Pick,
        clock: Clock,
        deadlines: Deadlines,
        deadline: float | None,
    ) -> None:
        self._socket = socket
        self._method = method
        self._headers = headers
        self._pick: Pick | None = pick
        self._clock = clock
        self._deadlines = deadlines
        self._deadline = deadline
        self._began = clock.monotonic()
        self._sender: asyncio.Task[None] | None = None
        self._ended = False

    async def open(self, body: Any) -> None:
        """Send the handshake, whose body servers discard, and then `body`."""
        try:
            await self._limited(self._socket.send(Message(self._headers, b"")))
            if self._method.spec.client_stream:
                self._sender = asyncio.create_task(self._send_all(body), name=f"requests of {self._method.spec.name}")
            else:
                await self._limited(self._socket.send(self._message(body)))
        except BaseException:
            self._pick = None  # the caller reports the outcome of an opening that failed
            await self.aclose()
            raise

    def _message(self, value: Any) -> Message:
        return Message(self._headers, self._method.encode(value, self._headers.get(names.ID, "")))

    async def _send(self, message: Message) -> bool:
        """Whether it went out. If not, the receiving side finds out, with the server's error if there is one."""
        try:
            await self._socket.send(message)
        except (errors.ConnectionFailed, errors.Closed):
            return False
        return True

    async def _send_all(self, values: AsyncIterator[Any]) -> None:
        """Send the requests and their end. An error of the caller's own iterator goes to the caller."""
        try:
            await self._send_each(values)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            await self._give_up(errors.UsageError("the stream of requests was cancelled from inside"))
        except Exception as error:
            await self._give_up(error)

    async def _send_each(self, values: AsyncIterator[Any]) -> None:
        try:
            sent = 0
            async for value in values:
                if not await self._send(self._message(value)):
                    return
                sent += 1
                if sent % names.TURN == 0:
                    await asyncio.sleep(0)
            await self._send(Message(self._headers.extend(_END), b""))
        finally:
            close = getattr(values, "aclose", None)
            if close is not None:
                await close()

    async def _give_up(self, error: Exception) -> None:
        self._source_error = error
        await self._socket.aclose()

    _source_error: Exception | None = None

    def __aiter__(self) -> Outbound:
        return self

    async def __anext__(self) -> Any:
        if self._ended:
            raise StopAsyncIteration
        try:
            value = await self._next()
        except errors.ConnectionFailed as error:
            await self._finish(Outcome.BROKEN, error)
            text = f"the stream {self._method.spec.name} broke: {error}"
            raise errors.Unavailable(text, "pymicro.client") from error
        except errors.Closed:
            await self._finish(Outcome.OK)
            if self._source_error is not None:
                raise self._source_error from None
            raise
        except asyncio.CancelledError:
            await self._finish(Outcome.UNKNOWN)
            raise
        except BaseException:
            await self._finish(Outcome.OK)
            raise
        if not self._method.spec.server_stream:
            await self._finish(Outcome.OK)  # the one response; go-micro's servers do not end such a stream
        return value

    async def _next(self) -> Any:
        message = await self._limited(self._socket.recv())
        error = error_of(message.headers)
        if error is not None:
            raise error
        if is_end(message.headers):
            raise StopAsyncIteration
        value = self._method.decode(message.body, message.headers)
        if self._pick is not None:
            self._pick.answered()
        return value

    async def _limited(self, work: Any) -> Any:
        """Await `work` within the stream's deadline."""
        if self._deadline is None:
            return await work
        remaining = self._deadline - self._clock.monotonic()
        if remaining <= 0:
            work.close()
            raise self._late()
        interrupt = Interrupt.of()
        self._deadlines.start(interrupt, remaining)
        try:
            return await work
        except asyncio.CancelledError:
            if not interrupt.caught():
                raise
            raise self._late() from None
        finally:
            interrupt.stop()

    def _late(self) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(f"the deadline of the stream {self._method.spec.name} passed", "pymicro.client")

    async def _finish(self, outcome: Outcome, error: Exception | None = None) -> None:
        self._ended = True
        pick, self._pick = self._pick, None
        if pick is not None:
            pick.done(outcome, self._clock.monotonic() - self._began, error)
        try:
            if self._sender is not None and not self._sender.done():
                self._sender.cancel()
                await asyncio.wait([self._sender])
        finally:
            await self._socket.aclose()

    async def aclose(self) -> None:
        """End the stream from this side. Idempotent."""
        await self._finish(Outcome.UNKNOWN)
