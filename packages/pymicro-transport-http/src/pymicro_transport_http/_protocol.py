"""Bytes into messages: one side of an HTTP/1.1 connection, without any I/O.

States: *in a head* (`_headers` is None) and *in a body*. httptools finds the ends; this file collects what lies
between, under limits, and refuses what could be read in two ways. Rules:

* Complete messages go to `inbox`. The first thing that is wrong goes to `fault`; nothing is read after it.
* A callback in C (`dict.setdefault`, `list.append`) costs a third of one in Python, so fields and body chunks have
  those. They check nothing, so what one `feed` brings is checked after it: memory is bounded by the limits plus
  one segment.
* `_stalled` counts the bytes of whole segments that brought no head to its end and no body byte: heads, chunk
  extensions and trailers that do not end. Segments in which something ended are not counted.

Sources: RFC 9112; go-micro `transport/http_socket.go`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

import httptools

from pymicro import errors
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro_transport_http._repeats import KNOWN_REPLIES, Replies, Requests

ERROR_ID: Final = "pymicro.transport.http"

#: How much of the body of a refusal is shown to people.
_EXCERPT: Final = 1024
_MAX_CHUNKS: Final = 64

#: Bodies of at least this size and known length are collected without the parser, which would copy each segment.
_LARGE: Final = 32 * 1024

_MAX_WINDOW_DIGITS: Final = 9

#: Of a length; Python reads no number of thousands, and httptools accepts any number of leading zeros.
_MAX_DIGITS: Final = 100

#: A head that is not complete may have this many bytes for each one that counts (`a:` CR LF), and a start line.
_PUNCTUATION: Final = 4
_START_LINE: Final = 1024

#: Fields that say nothing once the message is complete.
_NOISE: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"user-agent", b"accept-encoding"})


#: The name of the protocol of `_channels`, in upgrade requests.
CHANNELS: Final = "pymicro-channels/1"

#: Carries the bytes of one channel that its sender will hold before it gives credit, in an upgrade and its answer.
WINDOW: Final = "Pymicro-Window"


#: Tells, in the answer to an upgrade, the processes at one address apart.
PROCESS: Final = "Pymicro-Process"


class Upgrade(NamedTuple):
    """A peer asked for channels.

    Attributes:
        window: bytes that it holds of each channel.
        rest: what it sent after that.
    """

    window: int
    rest: bytes


class _Refused(Exception):
    """Leaves a callback; `fault` says why."""


class Parser(ABC):
    """What requests and responses have in common.

    Args:
        limits: of bodies and heads.
        peer: address of the other side, for errors.

    Attributes:
        inbox: complete messages, oldest first.
        fault: why nothing more will come; None while all is well.
        received: how many messages were complete.
        streaming: whether a message belonged to a stream.
        upgrade: set when the peer asked for channels; nothing is read after it.
    """

    def __init__(self, limits: Limits, peer: str) -> None:
        self.inbox: deque[Message] = deque()
        self.fault: errors.PymicroError | None = None
        self.received = 0
        self.streaming = False
        self.upgrade: Upgrade | None = None
        self.peer = peer
        self._repeats: Requests | Replies | None = self._compare(min(limits.message, limits.headers))
        self._max_message = limits.message
        self._max_headers = limits.headers
        self._max_raw = _PUNCTUATION * limits.headers + _START_LINE
        self._large = 0
        self._left = 0
        self._fields: dict[bytes, bytes] = {}
        self._headers: Headers | None = None
        self._chunks: list[bytes] = []
        self._spill = bytearray()
        self._total = 0
        self._size = 0
        self._stalled = 0
        self._partial = False
        self.on_header = self._fields.setdefault
        self.on_body = self._chunks.append
        self._renew()

    #: Of a response; requests count as good ones.
    _status = 200

    #: Of the request that is refused, or was answered by what is refused.
    _executed: errors.Executed = "no"

    @abstractmethod
    def _not_ok(self) -> None: ...

    @abstractmethod
    def _compare(self, limit: int) -> Requests | Replies: ...

    @abstractmethod
    def _make(self) -> httptools.HttpRequestParser | httptools.HttpResponseParser: ...

    @property
    def in_head(self) -> bool:
        """Whether a head is awaited: the first one, or the rest of one that began."""
        return self._headers is None and (self._stalled > 0 or self.received == 0)

    def feed(self, data: bytes) -> bool:
        """Take the next segment; whether all is well. Never raises for what a peer may send; see `fault`."""
        if self._left:
            return self._feed_large(data)
        repeats = self._repeats
        if repeats is not None:
            message = repeats.take(data)
            if message is not None:
                self.received += 1
                self.inbox.append(message)
                return True
            if not repeats.unknown:
                self._repeats = None  # where the next message begins is known to httptools alone
        self._size = len(data)
        self._partial = True
        try:
            self._http.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._failed(error, data)
        else:
            if self._partial:
                self._repeats = None
                self._unfinished()
            elif repeats is not None and repeats.unknown:
                repeats.learn(self.inbox[-1].headers)
        return self.fault is None

    def _feed_large(self, data: bytes) -> bool:
        """More of a large body. Behind its end, a parser of its own begins anew: this one still waits for the body."""
        rest = data[self._left :]
        self._chunks.append(data[: self._left] if rest else data)
        self._left -= min(self._left, len(data))
        if self._left:
            if len(self._chunks) > _MAX_CHUNKS:
                self._gather()
            return True
        self._renew()
        self.on_message_complete()
        return self.feed(rest) if rest else True

    def _renew(self) -> None:
        self._http = self._make()  # looks the callbacks up once
        # "Connection: close" and HTTP/1.0 end nothing: a go-micro socket goes on until it is closed
        self._http.set_dangerous_leniencies(lenient_keep_alive=True, lenient_data_after_close=True)

    def _upgrade(self, rest: bytes) -> None:
        if self.fault is not None:
            return
        message = self.inbox.pop()  # it is complete; what follows it is in another protocol
        self.received -= 1
        window = window_of(message.headers)
        if message.headers.get("upgrade") == CHANNELS and window is not None and self.received == 0:
            self.upgrade = Upgrade(window, rest)
        else:
            self.refuse_upgrade()

    def refuse_upgrade(self) -> None:
        """Nothing but HTTP is spoken here."""
        self.fault = errors.ProtocolViolation("CONNECT and protocol upgrades are not supported", self.peer)

    def _failed(self, error: httptools.HttpParserError, data: bytes) -> None:
        if self.fault is not None:
            return
        if isinstance(error, httptools.HttpParserCallbackError):
            raise error  # not the peer's fault
        detail = f"not HTTP/1.1: {error}"
        if data[0] in (0x15, 0x16) and data[1:2] == b"\x03":
            detail = "the peer speaks TLS and this side does not: configure both sides alike"
        self.fault = errors.ProtocolViolation(detail, self.peer)
        self.fault.__cause__ = error

    def _refuse(self, fault: errors.PymicroError) -> None:
        self.fault = fault
        raise _Refused

    def _unfinished(self) -> None:
        """The segment ended inside a message."""
        if self._headers is None:
            self._stalled += self._size
        else:
            self._gather()
            if self._large:
                self._left = self._large - self._total
        if self.fault is None and self._stalled > self._max_raw:
            self.fault = self._over(f"headers are over the limit of {self._max_headers} bytes")

    def _gather(self) -> None:
        chunks = self._chunks
        total = len(self._spill) + sum(map(len, chunks))
        self._stalled = 0 if total > self._total else self._stalled + self._size
        self._total = total
        if total > self._max_message:
            self.fault = self._too_large(total)
        elif len(chunks) > _MAX_CHUNKS:  # many tiny objects take more memory than their bytes
            self._spill += b"".join(chunks)
            chunks.clear()

    def _too_large(self, size: int) -> errors.TooLarge:
        return self._over(f"a message of {size} bytes or more is over the limit of {self._max_message}")

    def _over(self, detail: str) -> errors.TooLarge:
        return errors.TooLarge(detail, ERROR_ID, executed=self._executed)

    def _begin_body(self, length: bytes | None, known: Headers | None = None) -> None:
        """The head is complete; `length` is what it says of its body, and `known` headers that are the same as its."""
        fields = self._fields
        size = 0 if length is None else int(length if len(length) < _MAX_DIGITS else length.lstrip(b"0") or b"0")
        if size > self._max_message:
            self._refuse(self._too_large(size))
        if self._stalled + self._size > self._max_headers:
            counted = sum(map(len, fields.keys())) + sum(map(len, fields.values()))
            if counted > self._max_headers:
                self._refuse(self._over(f"headers are over the limit of {self._max_headers} bytes"))
        self._stalled = -self._size
        self._headers = Headers.from_raw(fields.copy()) if known is None else known
        fields.clear()
        self._large = size if size >= _LARGE else 0

    def _take_framing(self) -> tuple[bytes | None, bytes | None, bool]:
        """Remove the noise, however it is spelled; return host, length, and whether the body is chunked."""
        fields = self._fields
        known: dict[bytes, bytes] = {}
        chunked = False
        for name in [name for name in fields if name.lower() in _NOISE]:
            value = fields.pop(name)
            known.setdefault(name.lower(), value)
            if name.lower() == b"transfer-encoding":
                chunked = True
                if value.strip().lower() != b"chunked":
                    self._refuse(errors.ProtocolViolation("a transfer coding other than chunked", self.peer))
        return known.get(b"host"), known.get(b"content-length"), chunked

    def on_message_complete(self) -> None:
        """Called by httptools."""
        if self._status != 200:
            self._not_ok()
            return
        chunks = self._chunks
        body = b""
        if self._total or self._fields or len(chunks) > 1:
            body = self._join_body()
        elif chunks:
            body = chunks.pop()
        headers = self._headers
        self._headers = None
        self._stalled = 0
        self._partial = False
        if len(body) > self._max_message:
            self._refuse(self._too_large(len(body)))
        if headers is not None:
            self.received += 1
            self.inbox.append(Message(headers, body))

    def _join_body(self) -> bytes:
        self._fields.clear()  # trailers
        body = b"".join((self._spill, *self._chunks))
        self._chunks.clear()
        self._spill.clear()
        self._total = 0
        return body

    def release(self) -> None:
        """Break the reference cycle with httptools; nothing may be fed any more."""
        del self._http

    def end(self) -> None:
        """The peer will send nothing more."""
        if self.fault is None:
            inside = self._headers is not None or self._stalled > 0
            where = " in the middle of a message" if inside else ""
            self.fault = errors.Disconnected(f"the peer closed the connection{where}", self.peer)


class RequestParser(Parser):
    """What a listening side receives."""

    def _compare(self, limit: int) -> Requests:
        return Requests(limit)

    def _make(self) -> httptools.HttpRequestParser:
        return httptools.HttpRequestParser(self)

    def _not_ok(self) -> None:
        raise AssertionError("requests have no status")

    def on_headers_complete(self) -> None:
        """Called by httptools."""
        fields = self._fields
        length = fields.pop(b"Content-Length", None)
        if length is None or fields.pop(b"Host", None) is None:
            length = self._unusual(length)
        else:
            fields.pop(b"User-Agent", None)
            fields.pop(b"Accept-Encoding", None)
        if b"Micro-Stream" in fields:
            self.streaming = True
        self._begin_body(length)

    def _unusual(self, length: bytes | None) -> bytes | None:
        """A head without the two fields, or with another spelling of them."""
        host, other, _ = self._take_framing()
        if host is None and self._http.get_http_version() != "1.0":
            self._refuse(errors.ProtocolViolation("missing required Host header", self.peer))
        return length if length is not None else other


class ResponseParser(Parser):
    """What a dialling side receives."""

    _executed = "maybe"

    def __init__(self, limits: Limits, peer: str) -> None:
        self._reason: list[bytes] = []
        self.on_status = self._reason.append
        self._until_end = False
        super().__init__(limits, peer)

    def _compare(self, limit: int) -> Replies:
        return Replies(limit)

    def _make(self) -> httptools.HttpResponseParser:
        self._response = httptools.HttpResponseParser(self)
        return self._response

    def on_headers_complete(self) -> None:
        """Called by httptools."""
        fields = self._fields
        self._status = self._response.get_status_code()
        if self._status == 200:
            self._reason.clear()
        length = fields.pop(b"Content-Length", None)
        if length is None:
            _, length, chunked = self._take_framing()
            self._until_end = length is None and not chunked  # RFC 9112, section 6.3, rule 8
        else:
            fields.pop(b"User-Agent", None)  # echoed by Go peers
            fields.pop(b"Accept-Encoding", None)
            self._until_end = False
        known = KNOWN_REPLIES.get(fields.get(b"Content-Type", b"")) if len(fields) == 1 else None
        self._begin_body(length if self._status == 200 else None, known)

    def _not_ok(self) -> None:
        if 100 <= self._status < 200 and self._status != 101:  # interim: RFC 9110, section 15.2
            self._reason.clear()
            self._headers = None
            self._stalled = 0
            self._partial = False
            return
        self._refuse(self._refusal())

    def _refusal(self) -> errors.Error:
        reason = b"".join(self._reason).decode("utf-8", "replace")
        line = f"{self._status} {reason}".strip()
        text = b"".join((self._spill, *self._chunks))[:_EXCERPT].decode("utf-8", "replace").strip()
        executed: errors.Executed = "no" if self._headers and self._headers.get("micro-executed") == "no" else "maybe"
        return errors.from_code(self._status, f"{line}: {text}" if text else line, ERROR_ID, executed=executed)

    def _gather(self) -> None:
        super()._gather()
        if self._status != 200 and self._total >= _EXCERPT:
            self.fault = self._refusal()

    def end(self) -> None:
        if self.fault is None and self._headers is not None:
            if self._status != 200:
                self.fault = self._refusal()
            elif self._until_end:
                with suppress(_Refused):  # nothing is parsed here that it could interrupt
                    self.on_message_complete()
        super().end()


def window_of(headers: Mapping[str, str]) -> int | None:
    """The window that an upgrade or its answer carries; None if there is none that makes sense."""
    text = headers.get(WINDOW, "")
    sound = text.isdecimal() and text.isascii() and len(text) <= _MAX_WINDOW_DIGITS
    return (int(text) or None) if sound else None
