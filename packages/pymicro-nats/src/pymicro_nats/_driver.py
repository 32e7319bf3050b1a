"""What nats-py has no public way for. All uses of its private names are here; the tests fail when one of them changes.

* `Client.close` gives up half-way when it cannot write any more: it leaves tasks, and tells nobody. So the end of a
  connection is seen by the end of its tasks, and they are ended here.
* `Client.connect` uses `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that comes with a result;
  `subscribe` swallows one when many subscribe at once, which is when it waits, after the command was sent.
* `close` waits for a server that does not read, so the connection is aborted.
* `connect` goes on without TLS when the server has none.
* `Subscription.unsubscribe` drops what is on its way, and `drain` sends its question before what waits to be written.
* A message costs a parser's work on copies, a queue, a turn of another task and a dozen coroutines, which is most of
  what it costs at all: messages are read here (`_reader.Reader`), and written without the driver (`write`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from nats.errors import ProtocolError

from pymicro_nats._reader import Reader, Tap


@asynccontextmanager
async def cancellable() -> AsyncIterator[None]:
    """Cancel the block's task again where the block swallowed its cancellation, as `connect` may."""
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


def tasks(client: Any) -> list[asyncio.Task[None]]:
    """Those that read, write and ping, of a client that is connected or was."""
    found = (client._reading_task, client._flusher_task, client._ping_interval_task)
    return [task for task in found if task is not None]


async def abort(client: Any, seconds: float) -> None:
    """End the connection at once, and everything that belongs to it. Bounded in time."""
    writer = _writer(client)
    if writer is not None:
        writer.transport.abort()
    ending = [*tasks(client), *_callbacks(client)]
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending, timeout=seconds)


def encrypted(client: Any) -> bool:
    """Whether the connection uses TLS by now."""
    writer = _writer(client)
    return writer is not None and writer.get_extra_info("ssl_object") is not None


async def stop(client: Any, subscription: Any) -> None:
    """Tell the server that no more is wanted; what is on its way still arrives."""
    await client._send_unsubscribe(subscription._id)


def tap(client: Any, taps: Mapping[int, Tap]) -> None:
    """Hand the messages of some subscriptions, by their number, to functions that do not wait."""
    parser, stream = client._ps, client._transport._io_reader
    reader, before = Reader(taps, stream.feed_data), bytes(parser.buf) + bytes(stream._buffer)
    parser.buf.clear()
    stream._buffer.clear()

    def feed(data: bytes) -> None:
        try:
            reader.feed(data)
        except ValueError as error:
            stream.set_exception(
                ProtocolError(f"nats: {error}")
            )  # which ends the driver's task, and with it the session

    stream.feed_data = feed
    feed(before)


def number(subscription: Any) -> int:
    """What the server calls a subscription."""
    sid: int = subscription._id
    return sid


def next_number(client: Any) -> int:
    """What it will call the next one."""
    sid: int = client._sid + 1
    return sid


def message(client: Any, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> Any:
    """What a tap got as the driver's own message."""
    return client._build_message(sid, subject, reply, data, _parsed(client, headers) if headers else None)


def _parsed(client: Any, headers: bytes) -> dict[str, str] | None:
    try:
        client._process_headers(headers).send(None)  # a coroutine that does not wait
    except StopIteration as ended:
        parsed: dict[str, str] | None = ended.value
        return parsed
    raise RuntimeError("the driver's reading of headers waits for something")


def write(client: Any, data: bytes) -> int:
    """Write commands at once, after what the driver was about to write; how many bytes wait to be written now."""
    writer = _writer(client)
    if writer is None or writer.transport.is_closing():
        return 0
    if client._pending:
        data = b"".join([*client._pending, data])
        client._pending = []
        client._pending_data_size = 0
    writer.write(data)
    return writer.transport.get_write_buffer_size()


async def drain(client: Any) -> None:
    """Wait until the server reads, if much waits to be written.

    Raises:
        ConnectionError: the connection ended.
    """
    writer = _writer(client)
    if writer is not None:
        await writer.drain()


def _writer(client: Any) -> asyncio.StreamWriter | None:
    writer: asyncio.StreamWriter | None = getattr(client._transport, "_io_writer", None)
    return writer


def _callbacks(client: Any) -> Iterator[asyncio.Task[None]]:
    for subscription in client._subs.values():
        if subscription._wait_for_msgs_task is not None:
            yield subscription._wait_for_msgs_task
