"""Bytes into frames: one side of a connection that carries many channels, without any I/O.

`docs/reference/channels.md` specifies the format. A frame is a header of 14 bytes and a payload:

    size:u32  channel:u32  value:u32  kind:u8  head:u8  payload:size

A message is one WHOLE frame, or BEGIN, any number of MORE, and END. `value` is the length of the fields at the start
of its payload, and `head` names fields that were sent before (0: none). What a whole connection shares is refused for
the whole connection (`ProtocolViolation`); what belongs to one channel is refused for that channel alone.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

from pymicro import errors
from pymicro.message import Message
from pymicro.metadata import EMPTY, Headers
from pymicro.plugins import Limits
from pymicro_transport_http._protocol import ERROR_ID

FRAME: Final = struct.Struct(">IIIBB")  # size, channel, value, kind, head
OVERHEAD: Final = FRAME.size

WHOLE: Final = 0
BEGIN: Final = 1
MORE: Final = 2
END: Final = 3
HEAD: Final = 4
CREDIT: Final = 5
CLOSE: Final = 6

#: The largest piece of a body in one frame, so that a large message lets others pass between its pieces.
PIECE: Final = 64 * 1024

_MAX_TAIL: Final = 64

#: Heads that one side may name on a connection, the largest of them, and bytes of all; what is beyond goes with each
#: message. As objects they take up to 20 times as much, for as long as the connection lasts.
MAX_HEADS: Final = 255
MAX_HEAD: Final = 4096
ALL_HEADS: Final = 64 * 1024


class Sink(Protocol):
    """Who is told of what arrives."""

    def message(self, channel: int, message: Message, size: int) -> None:
        """A message is complete; `size` bytes of the window are taken by its last frame."""

    def piece(self, channel: int, size: int) -> bool:
        """A frame that completes nothing took `size` bytes of the window. False: nobody wants the message."""

    def discarded(self, channel: int, size: int) -> None:
        """A piece of a message that nobody wants took `size` bytes of the window."""

    def refuse(self, channel: int, error: errors.Error, size: int) -> None:
        """A message on the channel breaks a limit; its frame took `size` bytes of the window."""

    def credit(self, channel: int, size: int) -> None:
        """The peer took `size` bytes out of its window."""

    def closed(self, channel: int, received: int, *, refused: bool) -> None:
        """The peer closed the channel after it took `received` messages from it; `refused`: it never opened it."""


class _Unfinished:
    """A message of which not every piece is there. Pieces may be tiny, so they are not kept as objects."""

    __slots__ = ("body", "headers")

    def __init__(self, headers: Headers, piece: bytes) -> None:
        self.headers = headers
        self.body = bytearray(piece)


class FrameParser:
    """Takes bytes, tells a `Sink` what they mean.

    Args:
        limits: of messages and headers.
        peer: address of the other side, for errors.
        sink: is told, in order.
    """

    def __init__(self, limits: Limits, peer: str, sink: Sink) -> None:
        self._limits = limits
        self._peer = peer
        self._sink = sink
        self._heads = [EMPTY]
        self._head_sizes = [0]
        self._heads_room = ALL_HEADS
        self._heads_over_limit: set[int] = set()
        self._unfinished: dict[int, _Unfinished] = {}
        self._tail: list[bytes] = []
        self._have = 0
        self._need = OVERHEAD
        self._skip = 0
        self._max_payload = largest_payload(limits)
        self._most = min(limits.message, self._max_payload)

    def forget(self, channel: int) -> None:
        """Nothing more is wanted of the channel."""
        self._unfinished.pop(channel, None)

    def feed(self, data: bytes) -> None:
        """Take the next segment.

        Raises:
            ProtocolViolation: what arrived makes no sense; nothing may be fed any more.
        """
        if self._have or self._skip:
            joined = self._joined(data)
            if joined is None:
                return
            data = joined
        message, heads, unpack, most = self._sink.message, self._heads, FRAME.unpack_from, self._most
        unfinished, over = self._unfinished, self._heads_over_limit
        start, end, need = 0, len(data), OVERHEAD
        while end - start >= OVERHEAD:
            size, channel, value, kind, head = unpack(data, start)
            body = start + OVERHEAD
            stop = body + size
            if stop > end and size <= self._max_payload:
                need += size
                break
            if kind == WHOLE and value <= size <= most and head < len(heads) and channel not in unfinished:
                if value or head in over:
                    headers = self._headers(data[body : body + value], head, channel, size)
                    if headers is not None:
                        message(channel, Message(headers, data[body + value : stop]), size + OVERHEAD)
                else:
                    message(channel, Message(heads[head], data[body:stop]), size + OVERHEAD)
            elif size > self._max_payload:
                self._refuse_frame(size, channel, value, kind)
            else:
                self._other(channel, value, kind, head, data[body:stop])
            start = stop
        if start < end:
            self._tail.append(data[start:] if start else data)
            self._have, self._need = end - start, need
        else:
            self._skip = start - end

    def _joined(self, data: bytes) -> bytes | None:
        """What was kept, with `data` behind it; None while a frame is not complete."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            return data[skipped:] or None
        tail = self._tail
        tail.append(data)
        self._have += len(data)
        if self._have < self._need:
            if len(tail) > _MAX_TAIL:  # many tiny objects take more memory than their bytes
                tail[:] = [b"".join(tail)]
            return None
        data = b"".join(tail)
        tail.clear()
        self._have = 0
        return data

    def _refuse_frame(self, size: int, channel: int, value: int, kind: int) -> None:
        """A frame that no limit allows is not collected, so its size can do no harm."""
        if kind not in (WHOLE, BEGIN) or not size - PIECE <= value <= size:
            raise self._violation(f"a frame of {size} bytes")
        self._sink.refuse(channel, self._headers_too_large(), size + OVERHEAD)

    def _headers(self, block: bytes, head: int, channel: int, size: int) -> Headers | None:
        """The headers of a message; None when the channel was told that they are over the limit."""
        if len(block) + self._head_sizes[head] > self._limits.headers and self._over(block, head):
            self._sink.refuse(channel, self._headers_too_large(), size + OVERHEAD)
            return None
        fields = self._fields(block)
        return self._heads[head].add(fields) if head else Headers(fields)

    def _over(self, block: bytes, head: int) -> bool:
        return counted(block) + self._head_sizes[head] > self._limits.headers

    def _headers_too_large(self) -> errors.TooLarge:
        return errors.TooLarge(f"headers are over the limit of {self._limits.headers} bytes", ERROR_ID)

    def _too_large(self, size: int) -> errors.TooLarge:
        return errors.TooLarge(
            f"a message of {size} bytes or more is over the limit of {self._limits.message}", ERROR_ID
        )

    def _fields(self, block: bytes) -> tuple[tuple[str, str], ...]:
        try:
            parts = block.decode().split("\0")
        except UnicodeDecodeError:
            parts = block.decode("utf-8", "replace").split("\0")
        if len(parts) % 2 == 0 or parts[-1]:  # each name and each value ends with a NUL
            raise self._violation("header fields that are no pairs")
        return tuple(zip(parts[0:-1:2], parts[1::2], strict=True))

    def _other(self, channel: int, value: int, kind: int, head: int, payload: bytes) -> None:
        if kind in (WHOLE, BEGIN) and value <= len(payload) and head < len(self._heads):
            self._begin(channel, value, head, payload, last=kind == WHOLE)
        elif kind in (MORE, END) and not value and not head:
            self._go_on(channel, payload, last=kind == END)
        elif kind == HEAD and not channel and not value and head == len(self._heads) <= MAX_HEADS:
            self._define(payload)
        elif kind == CREDIT and not payload and not head:
            self._sink.credit(channel, value)
        elif kind == CLOSE and not payload and head <= 1:
            self.forget(channel)
            self._sink.closed(channel, value, refused=head == 1)
        else:
            raise self._violation(f"a frame of kind {kind} that makes no sense here")

    def _define(self, block: bytes) -> None:
        self._heads_room -= len(block)
        if len(block) > MAX_HEAD or self._heads_room < 0:
            raise self._violation(f"heads over the limit: {len(block)} bytes")
        size = counted(block)
        if size > self._limits.headers:
            self._heads_over_limit.add(len(self._heads))
        self._heads.append(Headers(self._fields(block)))
        self._head_sizes.append(size)

    def _begin(self, channel: int, value: int, head: int, payload: bytes, *, last: bool) -> None:
        if channel in self._unfinished:
            raise self._violation("a message that begins inside another one")
        headers = self._headers(payload[:value], head, channel, len(payload))
        if headers is None:
            return
        if len(payload) - value > self._limits.message:
            self._sink.refuse(channel, self._too_large(len(payload) - value), len(payload) + OVERHEAD)
        elif last:
            self._sink.message(channel, Message(headers, payload[value:]), len(payload) + OVERHEAD)
        elif self._sink.piece(channel, len(payload) + OVERHEAD):
            self._unfinished[channel] = _Unfinished(headers, payload[value:])

    def _go_on(self, channel: int, payload: bytes, *, last: bool) -> None:
        found = self._unfinished.get(channel)
        if found is None:  # refused, or of a channel that this side closed
            self._sink.discarded(channel, len(payload) + OVERHEAD)
            return
        found.body += payload
        if len(found.body) > self._limits.message:
            self.forget(channel)
            self._sink.refuse(channel, self._too_large(len(found.body)), len(payload) + OVERHEAD)
        elif last:
            self.forget(channel)
            self._sink.message(channel, Message(found.headers, bytes(found.body)), len(payload) + OVERHEAD)
        else:
            self._sink.piece(channel, len(payload) + OVERHEAD)

    def _violation(self, detail: str) -> errors.ProtocolViolation:
        return errors.ProtocolViolation(f"not a channel frame: {detail}", self._peer)


def largest_payload(limits: Limits) -> int:
    """Bytes of the largest payload that a frame may need: a piece, and fields with a NUL behind each name and value.

    A name has at least one byte, a value may have none.
    """
    return PIECE + 3 * limits.headers


def counted(block: bytes) -> int:
    """Bytes of names and values, without the NUL behind each."""
    return len(block) - block.count(b"\0")
