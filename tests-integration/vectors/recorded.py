"""The recorded vectors, and readers of what is in them that owe nothing to pymicro."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

#: How Go escapes what could end a script in a web page; JSON readers see no difference.
_GO_ESCAPE = re.compile(rb"\\u(003c|003e|0026|2028|2029)")


class Vector(NamedTuple):
    """One recording.

    Attributes:
        name, what: which one, and what happened.
        origin: who wrote the bytes: Go's server, client, codec and so on; `python` for what was written for Go by hand.
        data: the bytes.
        meaning: what is in them, or what Go made of them.
    """

    name: str
    what: str
    origin: str
    data: bytes
    meaning: Any

    @property
    def text(self) -> str:
        """The bytes of a recording that is text."""
        return self.data.decode()


class Recording:
    """The vectors of some files, and which of them have a check.

    Args:
        files: names of files beside this one.
        only: a regular expression that the names of the vectors match; others are left out.
    """

    def __init__(self, *files: str, only: str = ".*") -> None:
        self._vectors: dict[str, Vector] = {}
        self.unchecked: set[str] = set()
        for file in files:
            for each in json.loads(Path(__file__).with_name(file).read_text(encoding="utf-8"))["vectors"]:
                data = each["text"].encode() if "text" in each else base64.b64decode(each["bytes"])
                assert each["name"] not in self._vectors, f"two vectors are called {each['name']}"
                if not re.fullmatch(only, each["name"]):
                    continue
                vector = Vector(each["name"], each["what"], each["from"], data, each["meaning"])
                self._vectors[vector.name] = vector
        self.unchecked.update(self._vectors)

    def __getitem__(self, name: str) -> Vector:
        return self._vectors[name]

    def names(self, pattern: str, fits: Callable[[Vector], bool] = lambda _: True) -> list[str]:
        """Names that the regular expression matches whole, of vectors that fit."""
        return [name for name, vector in self._vectors.items() if re.fullmatch(pattern, name) and fits(vector)]

    def check(self, names: Iterable[str], *, of: Callable[[str], Iterable[str]] | None = None) -> pytest.MarkDecorator:
        """A test's mark: it runs once for each name, as its argument `name`, and checks the vector of that name.

        Args:
            names: of vectors; an unknown one is an error.
            of: the vectors that the test checks for a name that is none itself, such as that of an exchange.
        """
        given = list(names)
        assert given, "nothing to check"
        for name in given:
            for each in (name,) if of is None else of(name):
                assert each in self._vectors, f"there is no vector {each}"
                self.unchecked.discard(each)
        return pytest.mark.parametrize("name", given)


def unescaped(data: bytes) -> bytes:
    """JSON that Go wrote, with the characters themselves where Go writes escapes that others have no use for."""
    return _GO_ESCAPE.sub(lambda match: chr(int(match[1], 16)).encode(), data)


class HttpMessage(NamedTuple):
    """A request or a response.

    Attributes:
        start: its first line.
        headers: by lower-case name, without those that say how long the body is.
        body: without its framing.
    """

    start: str
    headers: dict[str, str]
    body: bytes


#: Of framing, and of the machines where it was recorded.
_FRAMING = ("content-length", "transfer-encoding", "host", "user-agent", "accept-encoding", "date")


def http_messages(data: bytes) -> list[HttpMessage]:
    """The messages in recorded bytes, or in what pymicro wrote. Fails where they are not complete."""
    messages = []
    while data:
        message, data = http_message(data)
        messages.append(message)
    return messages


def http_message(data: bytes) -> tuple[HttpMessage, bytes]:
    """The first message, and what follows it.

    Raises:
        EOFError: it is not complete.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise EOFError(data)
    start, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body, rest = _chunks(rest)
    else:  # a refusal without a length ends with the connection
        length = int(headers.get("content-length", len(rest) if start.startswith("HTTP") else 0))
        body, rest = rest[:length], rest[length:]
        if len(body) < length:
            raise EOFError(data)
    return HttpMessage(start, {name: headers[name] for name in headers if name not in _FRAMING}, body), rest


def _chunks(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            raise EOFError(line)
        size = int(line, 16)
        chunk, end, rest = rest[:size], rest[size : size + 2], rest[size + 2 :]
        if end != b"\r\n":
            raise EOFError(chunk)
        body += chunk
        if not size:
            return body, rest


def meant(vector: Vector) -> list[HttpMessage]:
    """The messages that a recording of HTTP should hold, with the headers that count."""
    stated = vector.meaning if isinstance(vector.meaning, list) else [vector.meaning]
    return [
        HttpMessage(
            each["start"],
            {name.lower(): value for name, value in each["headers"].items() if name.lower() not in _FRAMING},
            bytes.fromhex(each["body_hex"]) if "body_hex" in each else each["body"].encode(),
        )
        for each in stated
    ]


def assert_same_request(recorded: HttpMessage, sent: HttpMessage) -> None:
    """Go's `Accept` means nothing to anybody; `Timeout` is what is left when it is written."""
    sent.headers.pop("micro-awaits", None)  # pymicro's own, and nothing to Go
    assert sent.start == recorded.start
    assert set(sent.headers) == set(recorded.headers) - {"accept"}
    assert 0 < int(sent.headers.pop("timeout", "1")) <= 5_000_000_000
    assert sent.headers.items() <= recorded.headers.items()
    assert sent.body == unescaped(recorded.body)
