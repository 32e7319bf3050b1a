"""Many sockets of messages on one connection between two pymicro peers.

A channel is opened by its first message, carries one call or stream at a time, and is used for one call after
another; it has a number, credit, and an end of its own, so that a large, slow or cancelled call harms no sibling.
`_frames` has the bytes and `docs/reference/channels.md` the rules.

Writes are gathered: frames go out after `_GATHERED` of them, at the end of the loop's turn, or at once when the peer
has nothing else to wait for. One write for all of a turn would make both sides take turns; one for each frame costs
a system call a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from pymicro.errors import (
    Closed,
    Disconnected,
    Error,
    ProtocolViolation,
    PymicroError,
    TooLarge,
)
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro_transport_http._channel import Channel
from pymicro_transport_http._encoding import encode_fields
from pymicro_transport_http._frames import (
    CLOSE,
    FRAME,
    OVERHEAD,
    WHOLE,
    FrameParser,
    counted,
    largest_payload,
)
from pymicro_transport_http._heads import Heads

#: Channels that may be open on one connection.
MAX_CHANNELS: Final = 1000

#: Frames that go out together at most.
_GATHERED: Final = 16

#: Payloads up to this size are gathered; copying larger ones costs more than a write of their own.
_JOINED: Final = 16 * 1024

#: Seconds that closing waits for the peer to read what was sent.
CLOSE_TIMEOUT: Final = 5.0

_LAST_NUMBER: Final = 2**32 - 1

_Waiter = asyncio.Future[None]


class Channels(asyncio.Protocol):
    """Either side of a connection of channels, from the moment that both sides agreed on it.

    Args:
        transport: the connection; its protocol becomes this.
        limits: of messages, headers and each channel's window.
        window: bytes that the peer lets a channel send before it gives credit.
        process: which of the processes at the peer's address it is; empty on the accepting side.
        accept: takes each channel that the peer opens, and says whether it does; None on the dialling side.
        on_lost: called once when the connection is gone, with the error if there was one.

    Attributes:
        activity: grows with each segment received.
        paused: whether the connection has no room for more.
        serving: whether this is the accepting side.
        half_window: bytes held for a channel after which credit is given.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: Limits,
        window: int,
        *,
        local: str,
        remote: str,
        process: str = "",
        accept: Callable[[Channel], bool] | None = None,
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self.limits = limits
        self.local, self.remote = local, remote
        self.process = process
        self.loop = asyncio.get_running_loop()
        self.activity = 0
        self.paused = False
        self.half_window = max(1, limits.buffer // 2)
        self._transport = transport
        self._window = window
        self._accept = accept
        self._on_lost: Callable[[Exception | None], None] | None = on_lost
        self.serving = accept is not None
        self._channels: dict[int, Channel] = {}
        self._last = 0
        self._nameless = 0
        self._leaving = False
        self._parser = FrameParser(limits, remote, self)
        self._heads = Heads(self._append)
        self._gathered: list[bytes] = []
        self._flushing = False
        self._due = 0 if self.serving else 1
        self._balance = 0
        self._open = True
        self._closing: asyncio.TimerHandle | None = None
        # A peer may send this much of one channel without credit: the window, and the frame that used it up.
        self._most_held = limits.buffer + largest_payload(limits) + OVERHEAD
        transport.set_protocol(self)

    # channels

    @property
    def has_room(self) -> bool:
        """Whether another channel may be opened."""
        within = len(self._channels) < MAX_CHANNELS and self._last < _LAST_NUMBER - MAX_CHANNELS
        return self._open and within and not self._leaving

    @property
    def at_rest(self) -> bool:
        """Whether nothing is going on in any channel."""
        return all(channel.at_rest for channel in self._channels.values())

    def __len__(self) -> int:
        """How many channels are open."""
        return len(self._channels)

    def __bool__(self) -> bool:
        return True

    def open_channel(self) -> Channel:
        """A new channel. The peer hears of it, and it gets its number, with its first message."""
        self._nameless -= 1
        channel = self._channels[self._nameless] = Channel(self, self._nameless, self._window)
        return channel

    def _give_number(self, channel: Channel) -> None:
        """Numbers grow with the first messages: the peer takes a lower one for a channel that is over."""
        del self._channels[channel.number]
        self._last = channel.number = self._last + 1
        self._channels[channel.number] = channel

    def close_channel(self, channel: Channel, *, tell: bool = True) -> None:
        """Forget a channel; `tell` the peer that it ended. The dialling side keeps no connection without channels."""
        if self._channels.pop(channel.number, None) is None:
            return
        self._parser.forget(channel.number)
        self._balance -= channel.sent - channel.received
        if tell and channel.number > 0:
            self.write_control(CLOSE, channel.number, channel.taken)
        if not self._channels and not self.serving:
            self.close()

    def leave(self) -> None:
        """Tell the peer to open no more channels here; those that are open go on."""
        if self._open:
            self._append(FRAME.pack(0, 0, 0, CLOSE, 1))

    def close(self, fault: PymicroError | None = None) -> None:
        """End every channel, then the connection; what was sent is still delivered.

        Args:
            fault: why, where it was not this side's user who wanted it; None for `Closed`.
        """
        if not self._open:
            return
        for channel in self._channels.values():
            if channel.number > 0:
                self.write_control(CLOSE, channel.number, channel.taken)
        self._flush()
        self._transport.close()
        self._closing = self.loop.call_later(CLOSE_TIMEOUT, self._transport.abort)
        self._end(fault or Closed("the connection was closed"))

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    def _end(self, fault: PymicroError) -> None:
        self._open = False
        for channel in [*self._channels.values()]:
            channel.lose(fault)

    # writing

    def write_message(self, channel: Channel, headers: Headers, body: bytes, *, kind: int = WHOLE) -> int:
        """Send a message, or with `kind` BEGIN its first piece; what it takes of the peer's window.

        Raises:
            TooLarge: the headers are over the limit; nothing was written.
        """
        head, constant, fields = self._heads.encode(headers)
        if constant + len(fields) > self.limits.headers:
            size = counted(encode_fields(headers.items()))
            if size > self.limits.headers:
                raise TooLarge(f"headers of {size} bytes are over the limit of {self.limits.headers}")
        if channel.number < 0:
            self._give_number(channel)
        size = len(fields) + len(body)
        start = FRAME.pack(size, channel.number, len(fields), kind, head) + fields
        self._balance += 1
        if size > _JOINED:
            self._write_apart(start, body)
        else:
            gathered = self._gathered
            gathered.append(start + body)
            if len(gathered) >= _GATHERED or self._balance == self._due:
                self._flush()
            elif not self._flushing:
                self._flush_soon()
        return size + OVERHEAD

    def write_piece(self, number: int, kind: int, piece: memoryview) -> int:
        """Send another piece of a message; what it takes of the peer's window."""
        self._write_apart(FRAME.pack(len(piece), number, 0, kind, 0), bytes(piece))
        return len(piece) + OVERHEAD

    def write_control(self, kind: int, number: int, value: int) -> None:
        """Send a frame without a payload."""
        if self._open:
            self._append(FRAME.pack(0, number, value, kind, 0))

    def _append(self, frame: bytes) -> None:
        self._gathered.append(frame)
        if not self._flushing:
            self._flush_soon()

    def _flush_soon(self) -> None:
        self._flushing = True
        self.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        gathered = self._gathered
        if gathered and self._sound:
            self._transport.write(b"".join(gathered))
        gathered.clear()

    def _write_apart(self, start: bytes, body: bytes) -> None:
        self._flush()
        if self._sound:
            self._transport.write(start)
            self._transport.write(body)

    @property
    def _sound(self) -> bool:
        """Whether writing makes sense. When a write has failed, the loop tells of it later."""
        return self._open and not self._transport.is_closing()

    # what asyncio calls

    def data_received(self, data: bytes) -> None:
        self.activity += 1
        try:
            self._parser.feed(data)
        except ProtocolViolation as fault:
            self._transport.abort()
            self._end(fault)

    def pause_writing(self) -> None:
        self.paused = True
        if self.serving:  # or refusals for a peer that does not read would pile up
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.paused = False
        if self.serving and not self._transport.is_closing():
            self._transport.resume_reading()
        for channel in [*self._channels.values()]:
            channel.may_send()

    def connection_lost(self, error: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        fault = Disconnected(
            f"the connection broke: {error}" if error else "the peer closed the connection", self.remote
        )
        fault.__cause__ = error
        self._end(fault)
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost(error)

    # what the parser tells: `_frames.Sink`

    def message(self, channel: int, message: Message, size: int) -> None:
        found = self._channels.get(channel)
        if found is None:
            found = self._opened(channel)
            if found is None:
                return
        self._hold(found, size)
        self._balance -= 1
        found.deliver(message)

    def piece(self, channel: int, size: int) -> bool:
        found = self._channels.get(channel) or self._opened(channel)
        if found is None:
            return False
        self._hold(found, size)
        if found.held >= self.half_window and found.drained:  # the limit of messages bounds what is not complete
            found.grant()
        return True

    def discarded(self, channel: int, size: int) -> None:
        found = self._channels.get(channel)
        if found is not None:
            self._hold(found, size)
            if found.held >= self.half_window:
                found.grant()

    def refuse(self, channel: int, error: Error, size: int) -> None:
        found = self._channels.get(channel) or self._opened(channel)
        if found is not None:
            self._hold(found, size)
            found.grant()
            found.refuse(error)

    def credit(self, channel: int, size: int) -> None:
        found = self._channels.get(channel)
        if found is not None:
            found.granted(size)

    def closed(self, channel: int, received: int, *, refused: bool) -> None:
        if refused:
            self._leaving = True
            if not self._channels and not self.serving:
                self.close()
        found = self._channels.get(channel)
        if found is not None:
            found.ended_by_peer(received, refused=refused)

    def _hold(self, channel: Channel, size: int) -> None:
        channel.held += size
        if channel.held > self._most_held:
            raise ProtocolViolation(f"channel {channel.number} was sent more than its credit", self.remote)

    def _opened(self, number: int) -> Channel | None:
        """The channel that a first message opens; None if it is not to be, or was closed by this side."""
        accept = self._accept
        if accept is None or number <= self._last:
            return None
        self._last = number
        channel = Channel(self, number, self._window)
        if len(self._channels) < MAX_CHANNELS:
            self._channels[number] = channel
            if accept(channel):
                return channel
            del self._channels[number]
        self._append(FRAME.pack(0, number, 0, CLOSE, 1))
        return None
