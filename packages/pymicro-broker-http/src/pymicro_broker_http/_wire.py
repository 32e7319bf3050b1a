"""The bytes: the message as JSON, error bodies, and the record of a subscription. Follows go-micro `broker/http.go`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from pymicro.errors import BadRequest, Error, InternalServerError
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro.record import Node, ServiceRecord

#: The service that all subscriptions of all processes are nodes of; the version says which queue.
SERVICE: Final = "micro.http.broker"

#: The version of subscriptions without a queue.
BROADCAST: Final = "ff.http.broadcast"

#: Seconds for which the registry keeps a subscription whose process went silent.
TTL: Final = 60.0

#: Who says so, in error bodies.
ERROR_ID: Final = "go.micro.broker"

TOPIC: Final = "Micro-Topic"

#: The ordering key on its way; other than the rest it is no header of the message.
KEY: Final = "Micro-Key"

#: Set on a response to a message for a subscription that this process does not have. Go Micro says nothing then.
UNSUBSCRIBED: Final = "Micro-Unsubscribed"

#: Set on a request: the subscription shall take the message only if it need not wait there. Go Micro takes it anyway.
IF_IDLE: Final = "Micro-If-Idle"

#: Names that Go Micro's subscribers look up as they are written here, and the two spellings of the id that they know.
_SPELLINGS: Final = {
    "content-type": ("Content-Type",),
    "micro-topic": (TOPIC,),
    "micro-id": ("Micro-ID", "Micro-Id"),
}


class Envelope(msgspec.Struct, rename="pascal"):
    """A message as JSON: headers, and the body in base64."""

    header: dict[str, str] | None = None
    body: bytes | None = None


_encode: Final = msgspec.json.Encoder(order="deterministic").encode  # Go sorts the names, too
_decode: Final = msgspec.json.Decoder(Envelope).decode


def write(message: Message, key: str | None) -> bytes:
    """The request body for a message."""
    fields: dict[str, str] = {}
    for name, value in message.headers.items():
        for spelling in _SPELLINGS.get(name.lower(), (name,)):
            fields[spelling] = value
    if key is not None:
        fields[KEY] = key
    return _encode(Envelope(fields, message.body))


def read(data: bytes) -> tuple[Message, str | None]:
    """The message in a request body, and its key.

    Raises:
        InternalServerError: it is no such JSON, or says no topic; the code is Go Micro's.
    """
    try:
        envelope = _decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InternalServerError(f"Error parsing request body: {error}", ERROR_ID) from error
    headers = Headers(envelope.header or {})
    if not headers.get(TOPIC):
        raise InternalServerError("Topic not found", ERROR_ID)
    key = headers.get(KEY)
    if key is not None:
        headers = headers.without(KEY)
    return Message(headers, envelope.body or b""), key


def longest(limits: Limits) -> int:
    """Bytes that a request body may have: base64 takes a third more, and JSON up to six bytes for one of a header."""
    return limits.message * 4 // 3 + limits.headers * 6 + 4096


def method_not_allowed() -> Error:
    """The error for a request that is no POST."""
    return BadRequest("Method not allowed", ERROR_ID)


def record(id: str, topic: str, queue: str, address: str, *, secure: bool) -> ServiceRecord:
    """How the registry knows a subscription."""
    metadata = {"broker": "http", "secure": "true" if secure else "false", "topic": topic}
    return ServiceRecord(SERVICE, queue or BROADCAST, nodes=(Node(id, address, metadata),))


class Audience:
    """Who is subscribed to one topic.

    Attributes:
        each: nodes that get every message.
        queues: by queue, nodes of which one gets it.
    """

    __slots__ = ("each", "queues")

    def __init__(self) -> None:
        self.each: list[Node] = []
        self.queues: dict[str, list[Node]] = {}


def audiences(records: Iterable[ServiceRecord]) -> dict[str, Audience]:
    """Who is subscribed, by topic. Nodes of other brokers are left out."""
    found: dict[str, Audience] = {}
    for record in records:
        for node in record.nodes:
            topic = node.metadata.get("topic")
            if topic is None or node.metadata.get("broker") != "http":
                continue
            audience = found.setdefault(topic, Audience())
            if record.version == BROADCAST:
                audience.each.append(node)
            else:
                audience.queues.setdefault(record.version, []).append(node)
    return found
