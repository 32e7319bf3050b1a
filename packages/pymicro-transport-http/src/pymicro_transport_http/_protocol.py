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
from typing import Final

import httptools

from pymicro import errors
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits

ERROR_ID: Final = "pymicro.transport.http"

#: How much of the body of a refusal is shown to people.
_EXCERPT: Final = 1024
_MAX_CHUNKS: Final = 64

#: A head that is not complete may have this many bytes for each one that counts (`a:` CR LF), and a start line.
_PUNCTUATION: Final = 4
_START_LINE: Final = 1024

#: Fields that say nothing once the message is complete.
_NOISE: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"user-agent", b"accept-encoding"})


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
    """

    def __init__(self, limits: Limits, peer: str) -> None:
        self.inbox: deque[Message] = deque()
        self.fault: errors.PymicroError | None = None
        self.received = 0
        self.streaming = False
        self.peer = peer
        self._max_message = limits.message
        self._max_headers = limits.headers
        self._max_raw = _PUNCTUATION * limits.headers + _START_LINE
        self._digits = len(str(limits.message))
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
        self._http = self._make()  # looks the callbacks up once
        # "Connection: close" and HTTP/1.0 end nothing: a go-micro socket goes on until it is closed
        self._http.set_dangerous_leniencies(lenient_keep_alive=True, lenient_data_after_close=True)

    @abstractmethod
    def _make(self) -> httptools.HttpRequestParser | httptools.HttpResponseParser: ...

    @property
    def in_head(self) -> bool:
        """Whether a head is awaited: the first one, or the rest of one that began."""
        return self._headers is None and (self._stalled > 0 or self.received == 0)

    def feed(self, data: bytes) -> bool:
        """Take the next segment; whether all is well. Never raises for what a peer may send; see `fault`."""
        self._size = len(data)
        self._partial = True
        try:
            self._http.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse_upgrade()
        except httptools.HttpParserError as error:
            self._failed(error, data)
        else:
            if self._partial:
                self._unfinished()
        return self.fault is None

    def _refuse_upgrade(self) -> None:
        if self.fault is None:  # the message was complete; what follows it is in another protocol
            self.inbox.pop()
            self.received -= 1
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
        if self.fault is None and self._stalled > self._max_raw:
            self.fault = errors.TooLarge(f"headers are over the limit of {self._max_headers} bytes", ERROR_ID)

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
        return errors.TooLarge(f"a message of {size} bytes or more is over the limit of {self._max_message}", ERROR_ID)

    def _begin_body(self, length: bytes | None) -> None:
        """The head is complete; `length` is what it says of its body."""
        fields = self._fields
        if length is not None and len(length) >= self._digits and int(length) > self._max_message:
            self._refuse(self._too_large(int(length)))
        if self._stalled + self._size > self._max_headers:
            size = sum(map(len, fields.keys())) + sum(map(len, fields.values()))
            if size > self._max_headers:
                self._refuse(errors.TooLarge(f"headers are over the limit of {self._max_headers} bytes", ERROR_ID))
        self._stalled = -self._size
        self._headers = Headers.from_raw(fields.copy())
        fields.clear()

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

    def _make(self) -> httptools.HttpRequestParser:
        return httptools.HttpRequestParser(self)

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

    def __init__(self, limits: Limits, peer: str) -> None:
        self._reason: list[bytes] = []
        self.on_status = self._reason.append
        self._status = 200
        self._until_end = False
        super().__init__(limits, peer)

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
        self._begin_body(length if self._status == 200 else None)

    def on_message_complete(self) -> None:
        """Called by httptools."""
        if self._status == 200:
            super().on_message_complete()
        else:
            self._not_ok()

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
        return errors.from_code(self._status, f"{line}: {text}" if text else line, ERROR_ID)

    def _gather(self) -> None:
        super()._gather()
        if self._status != 200 and self._total >= _EXCERPT:
            self.fault = self._refusal()

    def end(self) -> None:
        if self.fault is None and self._headers is not None:
            if self._status != 200:
                self.fault = self._refusal()
            elif self._until_end:
                self.on_message_complete()
        super().end()
