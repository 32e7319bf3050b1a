"""Messages as AMQP has them. Those for Go Micro's peers follow its plugin `transport/rabbitmq`.

Headers are in the table of headers and the body is as it is. A correlation id names the socket, and `reply_to` the
queue of the other end. A Go listener has one queue, whose name is its address.

Between pymicro's peers the property `type` says besides what a message is, and `message_id` how many bytes of messages
the socket had been given to send with it: a receiver tells the same number back when it has taken them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from pamqp.commands import Basic

from pymicro.errors import BackendRefused, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro_rabbitmq import check_table, text

#: Of a dialling side: the first message of a socket. It has `Terms`, and so has the answer.
OPEN: Final = "pymicro.open"
ACCEPT: Final = "pymicro.accept"
#: The answer of a listener that accepts no more.
REFUSE: Final = "pymicro.refuse"
DATA: Final = "pymicro.data"
#: So much was taken.
CREDIT: Final = "pymicro.credit"
#: Nothing comes any more; with one more than the messages that were taken, or 0 as the answer to one that belongs to
#: no socket, and so was not taken.
CLOSE: Final = "pymicro.close"

#: Bytes that a message counts besides its body and headers, so that empty ones count, too.
_OVERHEAD: Final = 64

#: The two spellings of the id that Go Micro's versions look up.
_SPELLINGS: Final = {"micro-id": ("Micro-ID", "Micro-Id")}


class Terms(msgspec.Struct, frozen=True):
    """What one end takes.

    Attributes:
        message, headers: as in `Limits`.
        window: bytes that may be on their way to it before it has taken some.
    """

    message: int
    headers: int
    window: int

    @classmethod
    def of(cls, limits: Limits) -> Terms:
        """What a process with these limits takes."""
        return cls(limits.message, limits.headers, limits.buffer)

    def check(self, message: Message) -> None:
        """Refuse what the peer would refuse.

        Raises:
            TooLarge: it says which limit the message is over.
        """
        body = len(message.body)
        if body > self.message:
            raise TooLarge(f"message of {body} bytes is over the peer's limit of {self.message}")
        if message.size - body > self.headers:
            raise TooLarge(f"headers of {message.size - body} bytes are over the peer's limit of {self.headers}")


class Parcel(msgspec.Struct, frozen=True):
    """A message as it came from the server.

    Attributes:
        kind: what it is; empty for one of a Go peer.
        socket: whose it is.
        reply_to: the queue of the peer.
        offset: bytes, in messages that have some; see `CLOSE` for that one.
        table: the headers.
        body: the body.
    """

    kind: str
    socket: str
    reply_to: str
    offset: int
    table: dict[str, str]
    body: bytes

    @property
    def size(self) -> int:
        """Bytes that it counts."""
        return cost(self.table, self.body)

    @property
    def terms(self) -> Terms | None:
        """What the peer takes; None if it does not say."""
        try:
            return msgspec.convert(self.table, Terms, strict=False)
        except msgspec.ValidationError:
            return None

    def message(self, limits: Limits) -> Message:
        """As the receiver of the socket gets it.

        Raises:
            TooLarge: it is over a limit.
        """
        message = Message(Headers(self.table), self.body)
        limits.check(message)
        return message


def parcel(properties: Basic.Properties, body: bytes) -> Parcel:
    """A message of any peer: what it may say at all is read as far as it makes sense."""
    offset = properties.message_id or ""
    return Parcel(
        kind=properties.message_type or "",
        socket=properties.correlation_id or "",
        reply_to=properties.reply_to or "",
        offset=int(offset) if offset.isascii() and offset.isdigit() and len(offset) < 20 else 0,
        table={name: text(value) for name, value in (properties.headers or {}).items()},
        body=body,
    )


def table(message: Message, *, go: bool) -> dict[str, str]:
    """The headers of a message, for a Go peer as it looks them up.

    Raises:
        TooLarge: AMQP cannot carry them.
    """
    fields = dict(message.headers.items())
    if go:
        fields = {each: value for name, value in fields.items() for each in _SPELLINGS.get(name.lower(), (name,))}
    try:
        check_table(fields)
    except BackendRefused as error:
        raise TooLarge(error.detail) from error
    return fields


def cost(table: Mapping[str, str], body: bytes) -> int:
    """Bytes that a message counts: the same for both ends."""
    return len(body) + sum(map(len, table)) + sum(map(len, table.values())) + _OVERHEAD


def properties(
    socket: str, reply_to: str, fields: Mapping[str, Any], kind: str = "", offset: int = 0
) -> Basic.Properties:
    """Everything of a message but its body; `kind` is empty for a Go peer."""
    return Basic.Properties(
        headers=dict(fields),
        correlation_id=socket,
        reply_to=reply_to or None,
        message_type=kind or None,
        message_id=str(offset) if kind else None,
    )
